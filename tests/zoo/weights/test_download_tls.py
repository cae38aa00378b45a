"""Over TLS, too, no server makes us wait: one that drips bytes inside of what TLS takes as a whole is left in time."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zoo.errors import WeightsError
from zoo.weights.download import fetch

CONTENT = bytes(range(256)) * 40

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of this machine that nobody has signed, with its key in the same file."""
    folder = tmp_path_factory.mktemp("tls")
    key, own, both = folder / "key.pem", folder / "own.pem", folder / "both.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-keyout", key, "-out", own, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_bytes(key.read_bytes() + own.read_bytes())
    return both


class Dripping:
    """A server that answers one request over TLS and sends one part of it a byte at a time, ten in a second.

    The part is the "handshake", the "headers" or a "record" of the body, of which TLS gives nothing until all is there.
    """

    def __init__(self, certificate: Path, part: str) -> None:
        self.part, self.ended, self.whole = part, threading.Event(), False
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(certificate)
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.thread = threading.Thread(target=self._answer, daemon=True)
        self.thread.start()
        self.url = f"https://127.0.0.1:{self.listener.getsockname()[1]}/file.bin"

    def _answer(self) -> None:
        try:
            connection = self.listener.accept()[0]
            with connection:
                tls = self.context.wrap_bio(self.incoming, self.outgoing, server_side=True)
                self._until_there(connection, tls.do_handshake)
                self._send(connection, "handshake")
                self._until_there(connection, tls.read)
                tls.write(b"HTTP/1.0 200 OK\r\nContent-Length: %d\r\n\r\n" % len(CONTENT))
                self._send(connection, "headers")
                tls.write(CONTENT)
                self._send(connection, "record")
                self.whole = True
        except OSError:  # the other side has gone, as it should
            pass

    def _until_there(self, connection: socket.socket, step: Callable[[], object]) -> None:
        while True:
            try:
                step()
            except ssl.SSLWantReadError:
                self._send(connection, "handshake")
                self.incoming.write(connection.recv(65536))
            else:
                return

    def _send(self, connection: socket.socket, part: str) -> None:
        data = self.outgoing.read()
        if part != self.part:
            connection.sendall(data)
            return
        for i in range(len(data)):
            if self.ended.is_set():
                raise ConnectionAbortedError
            connection.sendall(data[i : i + 1])
            time.sleep(0.1)

    def close(self) -> None:
        self.ended.set()
        self.listener.close()
        self.thread.join()


@pytest.fixture
def server(request: pytest.FixtureRequest, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dripping]:
    for proxy in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    dripping = Dripping(certificate, request.param)
    yield dripping
    dripping.close()


def verify(path: Path) -> None:
    if path.read_bytes() != CONTENT:
        raise WeightsError(f"{path} is another file")


@pytest.mark.parametrize("server", ["nothing"], indirect=True)
def test_a_file_arrives(server: Dripping, tmp_path: Path) -> None:
    assert fetch(server.url, tmp_path / "file.bin", verify=verify).read_bytes() == CONTENT


@pytest.mark.parametrize("server", ["nothing"], indirect=True)
def test_a_certificate_that_nobody_trusts_is_refused(
    server: Dripping, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(WeightsError, match=r"cannot reach .*certificate verify failed"):
        fetch(server.url, tmp_path / "file.bin", verify=verify)


@pytest.mark.parametrize("server", ["handshake", "headers", "record"], indirect=True)
def test_a_part_that_comes_byte_by_byte_ends_with_the_time_out(server: Dripping, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot reach .*(timed out|no answer within 0\.5 seconds)"):
        fetch(server.url, tmp_path / "file.bin", verify=verify, timeout=0.5)
    assert not server.whole  # it would have gone on: for a minute and a half, 9 seconds, a quarter of an hour
    assert not (tmp_path / "file.bin").exists()
