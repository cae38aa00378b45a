"""What the zoo's tests share: an empty home, and a local web server that misbehaves on request."""

from __future__ import annotations

import contextlib
import http.server
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest


@pytest.fixture
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with nothing in it, and no folder of weights."""
    home = tmp_path / "home"
    monkeypatch.setenv("CIRCUITS_HOME", str(home))
    monkeypatch.delenv("CIRCUITS_WEIGHTS", raising=False)
    return home


@dataclass
class Server:
    """A web server on this machine: files by path, and how each is served.

    Ways: "whole"; "truncated" (half of it, then the line is cut, unless asked to go on); "slow" (in small pieces);
    "no-range" (whole whatever was asked); "drip" (a byte at a time, ten in a second); "drip-headers"
    (the same with one header without end); "endless" (again and again, no
    length said); "redirect" (to the address that its content is); "raw" (the content is the answer, with its head, in
    small pieces), "raw-drip" (the same, then a byte at a time), "raw-endless" (then without end).
    """

    address: str
    files: dict[str, bytes] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def serve(self, name: str, content: bytes, way: str = "whole") -> str:
        self.files[f"/{name}"], self.ways[f"/{name}"] = content, way
        return f"{self.address}/{name}"


def _handler(server: Server) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            server.requests.append((self.path, wanted))
            if self.path not in server.files:
                self.send_error(404)
                return
            content, way = server.files[self.path], server.ways[self.path]
            start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and way != "no-range" else 0
            if start >= len(content) > 0:
                self.send_error(416)
                return
            if way.startswith("raw"):
                self._raw(content, way)
                return
            self.send_response(302 if way == "redirect" else 206 if start else 200)
            if way == "redirect":
                self.send_header("Location", content.decode())
            if way == "drip-headers":
                self.flush_headers()
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    for _ in range(60):
                        self.wfile.write(b"X")
                        time.sleep(0.1)
                return
            if way != "endless":
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            body = content[start:]
            try:
                if way == "slow":
                    for i in range(0, len(body), 20_000):
                        self.wfile.write(body[i : i + 20_000])
                        time.sleep(0.02)
                elif way == "drip":
                    for i in range(len(body)):
                        self.wfile.write(body[i : i + 1])
                        time.sleep(0.1)
                elif way == "endless":
                    while True:
                        self.wfile.write(body)
                elif way == "truncated" and not start:
                    self.wfile.write(body[: len(body) // 2])
                else:
                    self.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                pass

        def _raw(self, content: bytes, way: str) -> None:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                for i in range(0, len(content), 20_000):
                    self.wfile.write(content[i : i + 20_000])
                    time.sleep(0.06)
                for _ in range(60 if way == "raw-drip" else 0):
                    self.wfile.write(b"a")
                    time.sleep(0.1)
                while way == "raw-endless":
                    self.wfile.write(b"a" * 65536)

    return Handler


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    web = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    web.daemon_threads = True
    described = Server(f"http://127.0.0.1:{web.server_address[1]}")
    web.RequestHandlerClass = _handler(described)
    thread = threading.Thread(target=web.serve_forever, daemon=True)
    thread.start()
    yield described
    web.shutdown()
    web.server_close()
    thread.join()
