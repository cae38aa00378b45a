"""Fetching one file over HTTP: verified before it gets its name, resumed after a kill, once for all processes."""

from __future__ import annotations

import http.client
import logging
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.errors import WeightsError
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_LOCK_SECONDS = 1800.0


def fetch(
    url: str,
    target: Path,
    *,
    verify: Callable[[Path], None],
    timeout: float = 30.0,
    progress: Progress = None,
) -> Path:
    """Fetch `url` to `target`, which appears only when whole, verified and on disk.

    What has arrived lies in `target` + ".part"; a later call goes on from there if the server can, else from the
    start. A lock file lets one process fetch while others wait and then find the file.

    Args:
        url: an http or https address.
        target: the file to make; its folder is made too.
        verify: raises `WeightsError` when a file is not the expected one.
        timeout: seconds without an answer after which the server counts as gone.
        progress: True for a bar, or a function of (bytes here, bytes in all, or 0 when unknown).

    Raises:
        WeightsError: no connection, an HTTP error, a truncated answer, a wrong digest, or a folder that cannot be
            written.
    """
    if not url.startswith(("http://", "https://")):
        raise WeightsError(f"only http and https addresses are fetched, not {url[:80]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock", timeout=_LOCK_SECONDS):
            if target.is_file():
                verify(target)  # another process was quicker
                return target
            with reporter(progress, "B") as report:
                return _fetch_alone(url, target, verify, timeout, report)
    except Timeout as error:
        minutes = _LOCK_SECONDS / 60
        raise WeightsError(f"another process has been fetching {target} for {minutes:.0f} minutes") from error
    except OSError as error:
        raise WeightsError(
            f"cannot write {target} ({error.strerror or error}): choose another folder with $CIRCUITS_HOME"
        ) from error


def _fetch_alone(
    url: str,
    target: Path,
    verify: Callable[[Path], None],
    timeout: float,
    report: Callable[[int, int], None],
) -> Path:
    part = target.with_name(target.name + ".part")
    resumed = _receive(url, part, timeout, report)
    try:
        verify(part)
    except WeightsError as error:
        part.unlink(missing_ok=True)
        if not resumed:
            raise WeightsError(f"what {url} sent is not the expected file: {_reason(error, part)}") from error
        # The first half was of another file, or damaged when the process died: once more, from the start.
        log.warning("the resumed download of %s does not verify; fetching it from the start", url)
        return _fetch_alone(url, target, verify, timeout, report)
    part.replace(target)
    _sync_folder(target.parent)
    return target


def _reason(error: WeightsError, part: Path) -> str:
    # The temporary file is gone by the time this is read, so its path is no use in the message.
    return str(error).replace(str(part), "it").partition(". Damaged")[0]


def _receive(url: str, part: Path, timeout: float, report: Callable[[int, int], None]) -> bool:
    """Bring `part` up to the whole answer; True when it was continued from an earlier attempt."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "vision-circuits"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            resumed = have > 0 and answer.status == http.HTTPStatus.PARTIAL_CONTENT
            have = have if resumed else 0
            length = answer.headers.get("Content-Length")
            total = have + int(length) if length and length.isdigit() else 0
            log.info("fetching %s (%.0f MB)%s", url, total / 1e6, f", from byte {have}" if resumed else "")
            with part.open("ab" if resumed else "wb") as file:
                have = _copy(answer, file.write, have, total, report)
                file.flush()
                os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            error.close()
            return True  # everything was here already; verification says whether it is right
        error.close()
        raise WeightsError(f"{url} answered {error.code} {error.reason}") from error
    except (TimeoutError, urllib.error.URLError, http.client.HTTPException, ConnectionError) as error:
        reason = getattr(error, "reason", error)
        raise WeightsError(f"cannot reach {url}: {reason or type(error).__name__}") from error
    if total and have != total:
        raise WeightsError(f"{url} broke off after {have} of {total} bytes; call again to go on from there")
    return resumed


def _copy(
    answer: http.client.HTTPResponse,
    write: Callable[[bytes], int],
    have: int,
    total: int,
    report: Callable[[int, int], None],
) -> int:
    logged = time.monotonic()
    while True:
        try:
            chunk = answer.read(_CHUNK)
        except http.client.IncompleteRead as error:
            chunk = error.partial
        if not chunk:
            return have
        write(chunk)
        have += len(chunk)
        report(have, total)
        if time.monotonic() - logged > 5:
            logged = time.monotonic()
            log.info("%.0f of %.0f MB", have / 1e6, total / 1e6)


def _sync_folder(folder: Path) -> None:
    """Flush the rename itself to disk, where the platform lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
