"""Who may ask: the host and origin of every request and websocket, checked before Streamlit sees it.

A page of a stranger can make a browser talk to a server on this machine. Streamlit takes a websocket whose origin is
its host; by DNS rebinding a stranger's page has both under its own name. So the name itself is checked: that of this
machine, or one that was allowed when the server was started.
"""

from __future__ import annotations

from collections.abc import Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
"""Names of this machine that no stranger's server can have."""

HEADERS = {
    # Streamlit's own scripts and styles are partly inline, and Plotly compiles functions; all come from this server
    "Content-Security-Policy": "; ".join(
        [
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "frame-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self'",
        ]
    ),
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
"""Sent with every answer: nothing is loaded from elsewhere, and no stranger's page frames it."""


def _name(netloc: str) -> str | None:
    """The host in `localhost:8501` or `[::1]:8501`, in small letters; None where it is none."""
    try:
        parts = urlsplit(f"//{netloc}")
        _ = parts.port  # a port that is no number is refused
    except ValueError:
        return None
    return None if set(netloc) & set("@/?#\\") else parts.hostname  # what urlsplit takes for more than a host


def refusal(headers: Headers, allowed: Iterable[str] = ()) -> str | None:
    """Why a request is refused, in one line; None where it is not.

    Args:
        headers: of the request. A program, unlike a browser, sends no Origin.
        allowed: further names of this server, such as that of a proxy.
    """
    names = LOOPBACK | {name.lower() for name in allowed}
    hosts = headers.getlist("host")
    host = hosts[0] if len(hosts) == 1 else ""
    if _name(host) not in names:
        return f"This server is not called {host[:100]!r}: circuits explore --allow-host NAME lets it be."
    origins = headers.getlist("origin")
    if not origins:
        return None
    parts = urlsplit(origins[0]) if len(origins) == 1 else urlsplit("")
    # a page of another port of this machine is a stranger, too; behind a proxy the ports differ, the name is allowed
    same = parts.netloc == host or _name(parts.netloc) in names - LOOPBACK
    if parts.scheme not in ("http", "https") or not same:
        return f"Pages of {origins[0][:100]!r} may not use this server."
    return None


class Gate:
    """ASGI middleware that answers 403 to those that are refused, and adds `HEADERS` to every answer."""

    def __init__(self, app: ASGIApp, allowed: Iterable[str] = ()) -> None:
        self.app, self.allowed = app, tuple(allowed)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        reason = refusal(Headers(scope=scope), self.allowed)
        if reason is None:
            await self.app(scope, receive, _with_headers(send))
        elif scope["type"] == "http":
            await PlainTextResponse(reason, status_code=403)(scope, receive, send)
        else:  # closed before it is accepted: the server answers 403
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": "not allowed"})


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            start: MutableMapping[str, Any] = message
            start.setdefault("headers", [])
            MutableHeaders(scope=start).update(HEADERS)
        await send(message)

    return sending
