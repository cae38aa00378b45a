"""`circuits verify`: known answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Session
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command
from apps.cli.verify.checks import FAIL, PASS, SKIPPED, SUITES, Check, Options


@command(group="Installation", order=10, summary="known answers, published or planted, beside what is computed here")
@dataclass(frozen=True, kw_only=True)
class Verify(Command):
    """Check known answers: what was published or planted, and what comes out here.

    The suite `library` needs no weights: nets set by hand, published tables, one computation done three ways.
    `scenes` checks the built-in network, whose parts are known. `inceptionv1` and `googlenet-bvlc` check published
    facts and run where the weights are; what is missing is reported. The exit code is 1 when a check failed.

    Example:
        circuits verify
        circuits verify scenes
        circuits verify inceptionv1 --weights inception5h.pth
    """

    suite: tyro.conf.Positional[str] = "all"
    """library, scenes, inceptionv1, googlenet-bvlc, or all."""
    weights: str | None = None
    """Weights file of the model; by default where its card looks."""
    images: str | None = None
    """Folder of images: 1,000 photographs, one per class in order (googlenet-bvlc), or the six of The Building
    Blocks of Interpretability (inceptionv1). By default below $CIRCUITS_DATA."""
    limit: int | None = None
    """At most so many drawn scenes or photographs: quicker, less certain."""

    def run(self, session: Session) -> CommandResult:
        """Run the suites."""
        import difflib

        if self.suite not in (*SUITES, "all"):
            close = difflib.get_close_matches(self.suite[:80].lower(), list(SUITES), n=2, cutoff=0.4)
            hint = f" Nearest: {', '.join(close)}." if close else ""
            raise UsageError(f"nothing is known of {self.suite[:60]!r}.{hint} There are {', '.join(SUITES)} and all")
        chosen = list(SUITES) if self.suite == "all" else [self.suite]
        if self.weights is not None and (len(chosen) > 1 or not SUITES[chosen[0]].weights):
            raise UsageError("--weights goes with one model: circuits verify inceptionv1 --weights FILE")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit is at least 1, not {self.limit}")
        options = Options(self.weights, self.images, self.device, self.seed, self.limit)
        results: dict[str, list[Check]] = {}
        elapsed = clock()
        with session.progress("checking") as report:
            for name in chosen:
                for result in _run(name, options, alone=len(chosen) == 1):
                    results.setdefault(name, []).append(result)
                    if report is not None:
                        report(sum(map(len, results.values())), 0)
        seconds = elapsed()
        checks = [check for suite in results.values() for check in suite]
        counts = {verdict: sum(c.verdict == verdict for c in checks) for verdict in (PASS, FAIL, SKIPPED)}
        document = {"counts": counts, "suites": {name: [vars(c) for c in suite] for name, suite in results.items()}}

        def show(console: Console) -> None:
            for name, suite in results.items():
                console.print(Text.assemble((name, "bold"), f"  {SUITES[name].what}"))
                console.print(table(["verdict", "what", "expected", "ours"], [_row(c) for c in suite]))
                console.print()
            verdict = f"{counts[PASS]} pass, {counts[FAIL]} fail, {counts[SKIPPED]} skipped"
            console.print(Text(f"{verdict}; {seconds:.0f} s", style="bold red" if counts[FAIL] else "bold green"))

        return CommandResult(document, show, code=1 if counts[FAIL] else 0)


def _run(name: str, options: Options, alone: bool) -> Iterator[Check]:
    """The checks of a suite; one that cannot start is a failed check when there are others to go on with."""
    from zoo.errors import CircuitsError

    try:
        yield from SUITES[name].checks(options)
    except CircuitsError as error:
        if alone:
            raise
        yield Check("can be loaded", "yes", str(error), FAIL)


def _row(check: Check) -> list[object]:
    style = {PASS: "green", FAIL: "bold red", SKIPPED: "yellow"}[check.verdict]
    return [Text(check.verdict, style=style), check.what, check.expected, check.ours]
