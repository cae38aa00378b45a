"""What a check is, and where the suites of checks live."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)

PASS, FAIL, SKIPPED = "pass", "fail", "skipped"


@dataclass(frozen=True)
class Check:
    """One known answer.

    Attributes:
        what: the question.
        expected: the answer that was published or planted; ours: what came out here.
        verdict: pass, fail, or skipped (`ours` is then what is missing).
        source: publication.
    """

    what: str
    expected: str
    ours: str
    verdict: str
    source: str = ""


@dataclass(frozen=True)
class Options:
    """What a suite is run with.

    Attributes:
        weights: weights file, or None for where the card looks.
        images: folder of images for the checks that need some, or None.
        device, seed: as everywhere.
        limit: at most so many images.
    """

    weights: str | None = None
    images: str | None = None
    device: str | None = None
    seed: int = 0
    limit: int | None = None

    def data(self, folder: str) -> Path | None:
        """The folder of images given, else `folder` below $CIRCUITS_DATA, where it exists."""
        import os

        if self.images is not None:
            return Path(self.images)
        base = os.environ.get("CIRCUITS_DATA")
        path = Path(base).expanduser() / folder if base else None
        return path if path is not None and path.is_dir() else None


@dataclass(frozen=True)
class Suite:
    """Checks that belong together.

    Attributes:
        module: where in this package its `checks(wanted)` lives.
        what: a phrase for people.
        weights: whether a weights file can be given.
    """

    module: str
    what: str
    weights: bool = True

    def checks(self, options: Options) -> Iterator[Check]:
        """Run the checks one by one. One that breaks ends the suite as a failed check; the user's errors are raised."""
        from zoo.errors import CircuitsError

        function: Callable[[Options], Iterator[Check]]
        function = importlib.import_module(f"apps.cli.verify.{self.module}").checks
        try:
            yield from function(options)
        except CircuitsError:
            raise
        except Exception as error:
            log.debug("the suite %s broke", self.module, exc_info=True)
            yield Check("the checks after this run through", "yes", f"{type(error).__name__}: {error}"[:200], FAIL)


SUITES: dict[str, Suite] = {
    "library": Suite(
        "library", "the library on planted circuits and published tables; needs no weights", weights=False
    ),
    "scenes": Suite("scenes", "the built-in network, whose parts are known"),
    "inceptionv1": Suite("inceptionv1", "facts of the Circuits thread about the 5h InceptionV1"),
    "googlenet-bvlc": Suite("googlenet", "accuracy of the BVLC GoogLeNet on photographs"),
}


def check(what: str, expected: str, ours: str, good: bool, source: str = "") -> Check:
    """A check that passes when `good`."""
    return Check(what, expected, ours, PASS if good else FAIL, source)


def skipped(what: str, expected: str, missing: str, source: str = "") -> Check:
    """A check that could not be made; `missing` is what it needs."""
    return Check(what, expected, missing, SKIPPED, source)
