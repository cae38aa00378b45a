"""Fetching one file over HTTP: verified before it gets its name, resumed after a kill, once for all processes.

A server cannot make it wait without end or fill the disk: sizes and rates are bounded, and a redirection leads to http
or https only.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from zoo.errors import WeightsError, shorten
from zoo.progress import Progress, reporter

log = logging.getLogger(__name__)

_CHUNK = 1 << 18
_LOCK_SECONDS = 1800.0
MAX_BYTES = 16 * 2**30
"""Bytes of a file at most; the largest networks of torchvision and timm have some 5 GB."""
SLOWEST = 1024.0
"""Bytes a second; a server that sends less for the time of a time-out counts as gone, so that none holds the lock."""


class _Deadline:
    """Breaks a connection off unless it is renewed, or ended, in time; `over` says that it did.

    The time-out of a socket begins anew with each byte: a server that drips them would hold us in TLS, in a proxy's
    answer, in the headers or in those of a chunk for as long as it likes.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self.over = False
        self._handle = connection.dup()  # a second one: TLS takes the first one away
        self._timer: threading.Timer | None = None
        self.renew(seconds)

    def renew(self, seconds: float) -> None:
        self._cancel()
        self._timer = threading.Timer(seconds, self._break_off)
        self._timer.daemon = True
        self._timer.start()

    def _cancel(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def end(self) -> None:
        self._cancel()
        self._handle.close()

    def _break_off(self) -> None:
        self.over = True
        with contextlib.suppress(OSError):
            self._handle.shutdown(socket.SHUT_RDWR)  # whoever waits for a byte of it wakes up


class _Answer(http.client.HTTPResponse):
    """An answer, to whose end there is a deadline."""

    deadline: _Deadline | None = None

    def close(self) -> None:
        super().close()
        if self.deadline is not None:
            self.deadline.end()


class _InTime(http.client.HTTPConnection):
    """From the connection to the last header no more time passes than the time-out; then twice that, until renewed."""

    response_class = _Answer

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._deadline: _Deadline | None = None
        self._answered = False
        self._connect: Callable[..., socket.socket] = vars(self)["_create_connection"]  # http.client's own seam
        vars(self)["_create_connection"] = self._connected

    def _connected(self, *args: Any, **options: Any) -> socket.socket:
        connection = self._connect(*args, **options)
        self._deadline = _Deadline(connection, self.timeout or 0.0)
        return connection

    def connect(self) -> None:
        """Connect, with a proxy's answer and TLS.

        Raises:
            TimeoutError: that took too long.
        """
        with self._in_time():
            super().connect()

    def getresponse(self) -> http.client.HTTPResponse:
        """The answer, its headers read.

        Raises:
            TimeoutError: they did not come in time.
        """
        with self._in_time():
            self._answered = True  # the deadline is the answer's from here on, which outlives the connection
            try:
                answer = super().getresponse()
            except BaseException:
                self._answered = False
                raise
            assert isinstance(answer, _Answer) and self._deadline is not None
            answer.deadline = self._deadline
            if answer.deadline.over:  # headers that break off count as whole there
                answer.close()
                raise ConnectionAbortedError
            answer.deadline.renew(2 * (self.timeout or 0.0))
        return answer

    @contextlib.contextmanager
    def _in_time(self) -> Iterator[None]:
        """Whatever breaks because the time is over is a time-out."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            if self._deadline is not None and self._deadline.over:
                raise TimeoutError(f"no answer within {self.timeout:g} seconds") from error
            raise

    def close(self) -> None:
        """Also the end of waiting, where no answer came."""
        if self._deadline is not None and not self._answered:
            self._deadline.end()
        super().close()


class _InTimeTLS(_InTime, http.client.HTTPSConnection):
    """The same for https."""


class _HTTP(urllib.request.HTTPHandler):
    def http_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_InTime, req)


class _HTTPS(urllib.request.HTTPSHandler):
    def https_open(self, req: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_InTimeTLS, req)


class _Redirections(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, *args: Any) -> urllib.request.Request | None:
        """Where a redirection leads; what else it says is not read, as urllib would to its end, which may not come."""
        fp.close()
        return super().redirect_request(req, fp, *args)


# no ftp, file or data handler, which urllib's own opener has: a redirection cannot lead there
_opener = urllib.request.OpenerDirector()
for _handler in (
    urllib.request.ProxyHandler, _HTTP, _HTTPS,
    urllib.request.HTTPDefaultErrorHandler, _Redirections, urllib.request.HTTPErrorProcessor,
    urllib.request.UnknownHandler,
):  # fmt: skip
    _opener.add_handler(_handler())


def fetch(
    url: str,
    target: Path,
    *,
    verify: Callable[[Path], None],
    timeout: float = 30.0,
    limit: int = MAX_BYTES,
    progress: Progress = None,
) -> Path:
    """Fetch `url` to `target`, which appears only when whole, verified and on disk.

    What has arrived lies in `target` + ".part"; a later call goes on from there if the server can, else from the
    start. A lock file lets one process fetch while others wait and then find the file.

    Args:
        url: an http or https address.
        target: the file to make; its folder is made too.
        verify: raises `WeightsError` when a file is not the expected one.
        timeout: seconds without an answer, or at less than `SLOWEST`, after which the server counts as gone.
        limit: bytes at most.
        progress: True for a bar, or a function of (bytes here, bytes in all, or 0 when unknown).

    Raises:
        WeightsError: no connection, an HTTP error, a truncated, endless or too large answer, a wrong digest, or a
            folder that cannot be written.
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
                return _fetch_alone(url, target, verify, _Bounds(timeout, limit), report)
    except Timeout as error:
        minutes = _LOCK_SECONDS / 60
        raise WeightsError(f"another process has been fetching {target} for {minutes:.0f} minutes") from error
    except OSError as error:
        raise WeightsError(
            f"cannot write {target} ({error.strerror or error}): choose another folder with $CIRCUITS_HOME"
        ) from error


@dataclass(frozen=True)
class _Bounds:
    """What a server may ask of us: seconds of waiting, and bytes."""

    timeout: float
    limit: int

    def too_large(self, url: str) -> WeightsError:
        return WeightsError(f"{url} sends more than the {self.limit:,} bytes that are fetched at most")


def _fetch_alone(
    url: str,
    target: Path,
    verify: Callable[[Path], None],
    bounds: _Bounds,
    report: Callable[[int, int], None],
) -> Path:
    part = target.with_name(target.name + ".part")
    resumed = _receive(url, part, bounds, report)
    try:
        verify(part)
    except WeightsError as error:
        part.unlink(missing_ok=True)
        if not resumed:
            raise WeightsError(f"what {url} sent is not the expected file: {_reason(error, part)}") from error
        # The first half was of another file, or damaged when the process died: once more, from the start.
        log.warning("the resumed download of %s does not verify; fetching it from the start", url)
        return _fetch_alone(url, target, verify, bounds, report)
    part.replace(target)
    _sync_folder(target.parent)
    return target


def _reason(error: WeightsError, part: Path) -> str:
    # The temporary file is gone by the time this is read, so its path is no use in the message.
    return str(error).replace(str(part), "it").partition(". Damaged")[0]


def _receive(url: str, part: Path, bounds: _Bounds, report: Callable[[int, int], None]) -> bool:
    """Bring `part` up to the whole answer; True when it was continued from an earlier attempt."""
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "vision-circuits"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        with _opener.open(request, timeout=bounds.timeout) as answer:
            resumed = have > 0 and answer.status == http.HTTPStatus.PARTIAL_CONTENT
            have = have if resumed else 0
            total = have + answer.length if answer.length else 0  # none where the header is no number
            if total > bounds.limit:
                raise bounds.too_large(url)
            log.info("fetching %s (%.0f MB)%s", url, total / 1e6, f", from byte {have}" if resumed else "")
            with part.open("ab" if resumed else "wb") as file:
                have = _copy(answer, file.write, have, total, url, bounds, report)
                file.flush()
                os.fsync(file.fileno())
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            error.close()
            return True  # everything was here already; verification says whether it is right
        error.close()
        raise WeightsError(f"{url} answered {error.code} {shorten(error.reason, 120)}") from error
    except (TimeoutError, urllib.error.URLError, http.client.HTTPException, ConnectionError, ValueError) as error:
        # a ValueError: of an address, a redirection's, that is none
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise WeightsError(f"cannot reach {url}: {shorten(reason, 120)}") from error
    if total and have != total:
        raise WeightsError(f"{url} broke off after {have} of {total} bytes; call again to go on from there")
    return resumed


def _copy(
    answer: _Answer,
    write: Callable[[bytes], int],
    have: int,
    total: int,
    url: str,
    bounds: _Bounds,
    report: Callable[[int, int], None],
) -> int:
    logged = since = time.monotonic()
    before = have
    while True:
        try:
            chunk = answer.read1(_CHUNK)  # what is there: `read` would wait for all of it, however slowly it comes
        except http.client.IncompleteRead as error:
            chunk = error.partial
        if answer.deadline is not None and answer.deadline.over:
            raise TimeoutError(f"no more than {have - before} bytes came in time; call again to go on from there")
        if not chunk:
            return have
        have += len(chunk)
        if have > bounds.limit:
            raise bounds.too_large(url)
        write(chunk)
        if (seconds := time.monotonic() - since) > bounds.timeout:
            if have - before < SLOWEST * seconds:
                raise TimeoutError(f"{have - before} bytes in {seconds:.0f} seconds; call again to go on from there")
            since, before = time.monotonic(), have
            if answer.deadline is not None:
                answer.deadline.renew(2 * bounds.timeout)
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
