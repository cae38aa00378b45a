"""The gate before the explorer: which hosts and origins are let through, and what every answer carries."""

from __future__ import annotations

import asyncio
import http.client
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from apps.cli.commands.explore import Explore
from apps.explorer.server.gate import HEADERS, Gate

HERE = "127.0.0.1:8501"
CASES: list[tuple[list[tuple[str, str]], tuple[str, ...], bool]] = [
    ([("host", HERE)], (), True),  # a program sends no origin
    ([("host", "localhost:8501"), ("origin", "http://localhost:8501")], (), True),
    ([("host", "[::1]:8501"), ("origin", "http://[::1]:8501")], (), True),
    ([("host", "LOCALHOST:8501")], (), True),
    ([("host", "evil.example:8501"), ("origin", "http://evil.example:8501")], (), False),  # DNS rebinding
    ([("host", HERE), ("origin", "http://evil.example")], (), False),  # a stranger's page
    ([("host", HERE), ("origin", "http://127.0.0.1:3000")], (), False),  # another server of this machine
    ([("host", HERE), ("origin", "null")], (), False),  # a sandboxed frame, a file
    ([("host", HERE), ("origin", "file://127.0.0.1:8501")], (), False),
    ([("host", HERE), ("origin", "")], (), False),
    ([("host", HERE), ("origin", f"http://{HERE}"), ("origin", "http://evil.example")], (), False),
    ([("host", HERE), ("host", "evil.example")], (), False),
    ([("host", "127.0.0.1@evil.example")], (), False),
    ([("host", "evil.example@127.0.0.1")], (), False),
    ([("host", "127.0.0.1.evil.example")], (), False),
    ([("host", "127.0.0.1:x")], (), False),
    *(([("host", f"localhost{mark}evil.example")], (), False) for mark in "#/?\\"),
    ([("host", "0.0.0.0:8501")], (), False),  # browsers let pages reach this machine by it
    ([], (), False),
    ([("host", "lab.example"), ("origin", "https://lab.example")], ("lab.example",), True),
    ([("host", HERE), ("origin", "https://lab.example")], ("Lab.example",), True),  # the proxy names itself as host
    ([("host", "lab.example"), ("origin", "https://evil.example")], ("lab.example",), False),
]


def ask(kind: str, headers: list[tuple[str, str]], allowed: tuple[str, ...]) -> tuple[bool, list[Any]]:
    """Whether the application was reached, and what was sent."""
    reached, sent = [], []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        reached.append(scope)
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
            await send({"type": "http.response.body", "body": b"page"})
        else:
            await send({"type": "websocket.accept"})

    async def receive() -> Any:
        return {"type": "websocket.connect" if kind == "websocket" else "http.request"}

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": kind, "method": "GET", "path": "/", "headers": [(k.encode(), v.encode()) for k, v in headers]}
    asyncio.run(Gate(application, allowed)(scope, receive, send))  # type: ignore[arg-type]
    return bool(reached), sent


@pytest.mark.parametrize("kind", ["http", "websocket"])
@pytest.mark.parametrize(("headers", "allowed", "let"), CASES, ids=lambda x: str(x)[:60])
def test_only_this_machine_and_allowed_names_are_served(
    kind: str, headers: list[tuple[str, str]], allowed: tuple[str, ...], let: bool
) -> None:
    reached, sent = ask(kind, headers, allowed)
    assert reached is let
    if not let:
        assert sent[0].get("status") == 403 if kind == "http" else sent[0]["type"] == "websocket.close"


def test_every_page_says_what_it_may_load_and_who_may_frame_it() -> None:
    _, sent = ask("http", CASES[0][0], ())
    headers = {k.decode(): v.decode() for k, v in sent[0]["headers"]}
    assert (
        headers.items() >= {k.lower(): v for k, v in HEADERS.items()}.items() and headers["content-type"] == "text/html"
    )
    assert "frame-ancestors 'self'" in headers["content-security-policy"]


def test_the_real_server_stands_behind_the_gate(tmp_path: Path) -> None:
    strange = tmp_path / "strange"  # the current folder, with settings for Streamlit that are not ours
    (strange / ".streamlit").mkdir(parents=True)
    (strange / ".streamlit" / "config.toml").write_text('[server]\nbaseUrlPath = "elsewhere"\n')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Explore(port=port, store=tmp_path / "store", model="scenes")
    log = tmp_path / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(
            command.command(), env=os.environ | command.environment(), stdout=file, stderr=file, cwd=strange,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # a test run in the background
        )  # fmt: skip
    try:
        for path, headers, status in [
            ("/_stcore/health", {}, 200),
            ("/", {"Host": f"evil.example:{port}"}, 403),
            (
                "/_stcore/stream",
                {"Origin": "http://evil.example", "Upgrade": "websocket", "Connection": "Upgrade"},
                403,
            ),
        ]:
            assert answer(server, port, path, headers) == status, path
        server.send_signal(signal.SIGINT)
        assert server.wait(timeout=30) == 0 and "Traceback" not in log.read_text()
    finally:
        server.kill()
        server.wait(timeout=20)


def answer(server: subprocess.Popen[bytes], port: int, path: str, headers: dict[str, str]) -> int:
    """The status of one request, waiting for the server to start."""
    keys = (
        {"Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="} if "Upgrade" in headers else {}
    )
    for _ in range(600):
        assert server.poll() is None, "the server ended"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        try:
            connection.request("GET", path, headers=headers | keys)
            return connection.getresponse().status
        except ConnectionRefusedError:
            time.sleep(0.1)
        finally:
            connection.close()
    raise AssertionError("the server never answered")
