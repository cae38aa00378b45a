"""Checks of everything that comes from the browser: text, names, images and JSON."""

from __future__ import annotations

import io
import logging
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from circuits.errors import CircuitsError, ImageError, shorten
from zoo.common.reading import parse_json

log = logging.getLogger(__name__)

MAX_UPLOAD = 10 * 2**20
"""Bytes of an upload."""
MAX_PIXELS = 40_000_000
"""Pixels of an uploaded image: more is a decompression bomb, or far beyond the input of a network."""
MAX_TEXT = 2_000
"""Characters of any text from the browser."""
OPTIONS: dict[str, Any] = {
    "server.address": "127.0.0.1",
    "server.headless": True,
    "server.enableXsrfProtection": True,
    "server.enableCORS": True,
    "server.maxUploadSize": MAX_UPLOAD // 2**20,
    "server.maxMessageSize": 64,
    "server.enableStaticServing": False,
    "server.enableAgentApi": False,
    "server.fileWatcherType": "none",
    "server.showEmailPrompt": False,
    "browser.gatherUsageStats": False,
    "client.showErrorDetails": "none",
    "client.showErrorLinks": False,
    "client.toolbarMode": "minimal",
    "client.allowedOrigins": [],
    "runner.magicEnabled": False,
}
"""Options of the server, as `.streamlit/config.toml` has them; its own address is set, so that none is looked up."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+\-.!|<>~$:^])")


class UploadError(CircuitsError):
    """An upload or a text that is refused."""


def checked_image(data: bytes) -> Any:
    """An uploaded image, decoded to RGB pixels; nothing else of the file is used.

    Raises:
        UploadError: too large, of another kind, or damaged.
    """
    from zoo.images.decoding import decode

    if len(data) > MAX_UPLOAD:
        raise UploadError(f"images have at most {MAX_UPLOAD // 2**20} MB; this one has {len(data) / 2**20:.1f}")
    try:
        return decode(io.BytesIO(data), MAX_PIXELS)
    except ImageError as error:
        raise UploadError(f"this image cannot be used: {error}") from error


def checked_json(data: bytes) -> Any:
    """An uploaded JSON document.

    Raises:
        UploadError: too large, or no JSON.
    """
    if len(data) > MAX_UPLOAD:
        raise UploadError(f"files have at most {MAX_UPLOAD // 2**20} MB; this one has {len(data) / 2**20:.1f}")
    try:
        return parse_json(data.decode("utf-8"))
    except ValueError as error:
        raise UploadError(f"this is no JSON file ({type(error).__name__})") from error


def checked_text(text: object, limit: int = MAX_TEXT) -> str:
    """Text from the browser: printable, without a break at its ends, at most `limit` characters.

    Raises:
        UploadError: it is longer.
    """
    printable = "".join(c for c in str(text) if c in "\n\t" or c.isprintable()).strip()
    printable = printable.encode("utf-8", "replace").decode("utf-8")
    if len(printable) > limit:
        raise UploadError(f"at most {limit} characters, not {len(printable)}: {shorten(printable, 40)}")
    return printable


def checked_name(text: object) -> str:
    """A name that may become part of a file name: letters, digits, dots, underscores and hyphens.

    Raises:
        UploadError: anything else.
    """
    name = str(text)
    if not _NAME.fullmatch(name) or ".." in name:
        raise UploadError(
            f"{shorten(name, 60)!r} is not a valid name: up to 80 letters, digits, dots, underscores or hyphens"
        )
    return name


def safe_join(root: Path, *names: object) -> Path:
    """A path inside of `root`, of names that are checked one by one; symbolic links that lead out of it are refused.

    Raises:
        UploadError: an invalid name, or one that leads out.
    """
    path = root.joinpath(*(checked_name(name) for name in names))
    if not path.resolve().is_relative_to(root.resolve()):
        raise UploadError(f"{shorten(names[-1], 60)!r} leads out of the store")
    return path


def plain(text: object, limit: int = 400) -> str:
    """Text escaped for Streamlit's Markdown, so that it is shown as it is."""
    line = " ".join(str(text).split())
    return _MARKDOWN.sub(r"\\\1", shorten(line, limit) if len(line) > limit else line)


@contextmanager
def guarded() -> Iterator[None]:
    """Show errors as one line on the page. An unexpected error goes to the log, and the page shows its number only."""
    import streamlit as st

    try:
        yield
    except CircuitsError as error:
        st.error(plain(error), icon=":material/error:")
    except Exception as error:
        # Streamlit ends a run by exceptions of its own
        if type(error).__module__.startswith("streamlit.runtime"):
            raise
        number = uuid.uuid4().hex[:8]
        log.exception("error %s", number)
        st.error(
            f"Something went wrong here. The error has number {number} in the server's log. "
            "Reload the page to try again, or go on from the menu on the left.",
            icon=":material/error:",
        )
