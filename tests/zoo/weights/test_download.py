"""A fetched file is whole and verified, or it is not there."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.zoo.conftest import Server
from zoo.errors import WeightsError
from zoo.weights.download import fetch

CONTENT = os.urandom(400_000)
ROOT = Path(__file__).parents[3]

# What another process runs: address, target, expected digest.
FETCHER = """
import hashlib, sys, pathlib
from zoo.weights.download import fetch
from zoo.errors import WeightsError
def verify(path):
    if hashlib.sha256(path.read_bytes()).hexdigest() != sys.argv[3]:
        raise WeightsError("wrong digest")
fetch(sys.argv[1], pathlib.Path(sys.argv[2]), verify=verify)
"""


def expecting(content: bytes) -> Callable[[Path], None]:
    def verify(path: Path) -> None:
        if path.read_bytes() != content:
            raise WeightsError(f"{path} is another file")

    return verify


def start_fetcher(url: str, target: Path, content: bytes) -> subprocess.Popen[bytes]:
    digest = hashlib.sha256(content).hexdigest()
    environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen([sys.executable, "-c", FETCHER, url, str(target), digest], env=environment)


def test_a_good_file_arrives_and_leaves_nothing_half_written(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "file.bin"
    seen: list[tuple[int, int]] = []
    url = server.serve("file.bin", CONTENT)
    fetch(url, target, verify=expecting(CONTENT), progress=lambda have, total: seen.append((have, total)))
    assert target.read_bytes() == CONTENT
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert {p.name for p in target.parent.iterdir()} <= {"file.bin", "file.bin.lock"}


def test_a_file_that_is_here_is_not_fetched_again(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    target.write_bytes(CONTENT)
    fetch(server.serve("file.bin", CONTENT), target, verify=expecting(CONTENT))
    assert server.requests == []


def test_a_truncated_answer_is_an_error_and_the_next_call_goes_on_from_there(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    url = server.serve("file.bin", CONTENT, "truncated")
    with pytest.raises(WeightsError, match="broke off after 200000 of 400000 bytes"):
        fetch(url, target, verify=expecting(CONTENT))
    assert not target.exists()
    fetch(url, target, verify=expecting(CONTENT))
    assert target.read_bytes() == CONTENT
    assert [wanted for _, wanted in server.requests] == [None, "bytes=200000-"]


def test_a_server_that_cannot_go_on_is_asked_from_the_start(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(CONTENT[:1000])
    fetch(server.serve("file.bin", CONTENT, "no-range"), target, verify=expecting(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_server_that_hardly_sends_anything_does_not_hold_the_lock(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    url = server.serve("file.bin", CONTENT, "drip")
    with pytest.raises(WeightsError, match=r"cannot reach .*bytes in 1 seconds; call again"):
        fetch(url, target, verify=expecting(CONTENT), timeout=0.5)
    assert 0 < (tmp_path / "file.bin.part").stat().st_size < 100 and not target.exists()
    server.serve("file.bin", CONTENT)
    assert fetch(url, target, verify=expecting(CONTENT)).read_bytes() == CONTENT  # from where it was


def test_headers_that_come_byte_by_byte_end_with_the_time_out(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    url = server.serve("file.bin", CONTENT, "drip-headers")
    with pytest.raises(WeightsError, match=r"cannot reach .*no answer within 0\.5 seconds"):
        fetch(url, target, verify=expecting(CONTENT), timeout=0.5)
    with pytest.raises(WeightsError, match=r"cannot reach .*no answer within 0\.5 seconds"):
        fetch(server.serve("moved.bin", url.encode(), "redirect"), target, verify=expecting(CONTENT), timeout=0.5)
    server.serve("file.bin", CONTENT)
    assert fetch(url, target, verify=expecting(CONTENT)).read_bytes() == CONTENT  # the lock is free


@pytest.mark.parametrize("head", [b"5;", b"5\r\naaaaa\r\n0\r\n"], ids=["chunk", "trailer"])
@pytest.mark.parametrize("kept", [b"", b"Connection: close\r\n"], ids=["kept", "closed"])
def test_chunk_heads_that_come_byte_by_byte_end_too(head: bytes, kept: bytes, server: Server, tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\n" + kept + b"Transfer-Encoding: chunked\r\n\r\n" + head
    with pytest.raises(WeightsError, match=r"cannot reach .*bytes came in time; call again"):
        fetch(server.serve("f", answer, "raw-drip"), tmp_path / "f", verify=expecting(CONTENT), timeout=0.5)


@pytest.mark.parametrize("way", ["raw-drip", "raw-endless"])
def test_what_else_a_redirection_says_is_not_read(server: Server, tmp_path: Path, way: str) -> None:
    there = server.serve("there.bin", CONTENT)
    url = server.serve("file.bin", b"HTTP/1.1 302 Found\r\nLocation: " + there.encode() + b"\r\n\r\n", way)
    assert fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT)).read_bytes() == CONTENT


def test_a_server_that_keeps_the_connection_may_take_longer_than_the_time_out(server: Server, tmp_path: Path) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 400000\r\n\r\n" + CONTENT
    url = server.serve("file.bin", answer, "raw")
    assert fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT), timeout=0.5).read_bytes() == CONTENT


@pytest.mark.parametrize("length", ["\xb2", "1" * 5000, "-5", "x"])
def test_a_length_that_is_no_number_counts_as_none(length: str, server: Server, tmp_path: Path) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode("latin-1") + CONTENT
    url = server.serve("file.bin", answer, "raw")
    assert fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("address", ["http://[::1/x", "http://127.0.0.1:99x/", f"http://{'a' * 70}.x/"])
def test_a_redirection_to_no_address_is_one_line(address: str, server: Server, tmp_path: Path) -> None:
    url = server.serve("file.bin", address.encode(), "redirect")
    with pytest.raises(WeightsError, match=r"^cannot reach [^\n]*$"):
        fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT))


@pytest.mark.parametrize("way", ["whole", "endless"])
def test_no_more_is_fetched_than_is_allowed(server: Server, tmp_path: Path, way: str) -> None:
    url = server.serve("file.bin", CONTENT, way)
    with pytest.raises(WeightsError, match="more than the 399,999 bytes"):
        fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT), limit=399_999)
    part = tmp_path / "file.bin.part"
    assert not part.exists() or part.stat().st_size <= 399_999


@pytest.mark.parametrize("scheme", ["ftp", "file", "data", "gopher"])
def test_a_redirection_leads_nowhere_but_to_http(server: Server, tmp_path: Path, scheme: str) -> None:
    there = tmp_path / "secret"
    there.write_bytes(CONTENT)
    address = {"file": there.as_uri(), "data": "data:,x"}.get(scheme, f"{scheme}://127.0.0.1:9/x")
    url = server.serve("file.bin", address.encode(), "redirect")
    with pytest.raises(WeightsError, match="edirect|unknown url type"):
        fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT))


def test_a_redirection_to_http_is_followed(server: Server, tmp_path: Path) -> None:
    there = server.serve("there.bin", CONTENT)
    url = server.serve("file.bin", there.encode(), "redirect")
    assert fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT)).read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"x" * 1000, b"x" * 500_000], ids=["shorter", "longer than the file"])
def test_leftovers_of_another_file_do_not_spoil_the_download(server: Server, tmp_path: Path, left: bytes) -> None:
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(left)
    fetch(server.serve("file.bin", CONTENT), target, verify=expecting(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_part_that_was_complete_when_the_process_died_is_used(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    (tmp_path / "file.bin.part").write_bytes(CONTENT)
    fetch(server.serve("file.bin", CONTENT), target, verify=expecting(CONTENT))
    assert target.read_bytes() == CONTENT


def test_a_wrong_digest_leaves_no_file(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    with pytest.raises(WeightsError, match="not the expected file"):
        fetch(server.serve("file.bin", b"something else"), target, verify=expecting(CONTENT))
    assert {p.name for p in tmp_path.iterdir()} <= {"file.bin.lock"}


def test_a_missing_page_is_named(server: Server, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing.bin answered 404"):
        fetch(f"{server.address}/nothing.bin", tmp_path / "file.bin", verify=expecting(CONTENT))


def test_no_connection_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with pytest.raises(WeightsError, match="cannot reach") as error:
        fetch(f"http://127.0.0.1:{port}/file", tmp_path / "file.bin", verify=expecting(CONTENT))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "nonsense"])
def test_only_web_addresses_are_fetched(url: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="only http and https"):
        fetch(url, tmp_path / "file.bin", verify=expecting(CONTENT))


def test_a_folder_that_cannot_be_made_is_named(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.raises(WeightsError, match="CIRCUITS_HOME"):
        fetch(server.serve("file.bin", CONTENT), tmp_path / "cache" / "file.bin", verify=expecting(CONTENT))


def test_a_process_killed_half_way_is_continued_by_the_next(server: Server, tmp_path: Path) -> None:
    target, part = tmp_path / "file.bin", tmp_path / "file.bin.part"
    content = os.urandom(4_000_000)
    process = start_fetcher(server.serve("file.bin", content, "slow"), target, content)
    deadline = time.monotonic() + 120
    while not (part.exists() and part.stat().st_size > 600_000):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    fetch(server.serve("file.bin", content), target, verify=expecting(content))
    assert target.read_bytes() == content
    resumed = server.requests[-1][1]
    assert resumed is not None and int(resumed.removeprefix("bytes=").rstrip("-")) > 600_000


def test_two_processes_at_once_fetch_it_once_and_both_have_it(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "file.bin"
    content = os.urandom(1_000_000)
    url = server.serve("file.bin", content, "slow")
    processes = [start_fetcher(url, target, content) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    assert target.read_bytes() == content
    assert len(server.requests) == 1
