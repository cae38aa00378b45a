"""`circuits bench circuits`: how well methods find circuits whose answers are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Many, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.common.statistics import Estimate
    from circuits.tracing.benchmark import BenchmarkTable

MEASURES = {
    "cmd": "CMD", "cpr": "CPR", "exact_auroc": "AUROC, exact", "exact_spearman": "Spearman, exact",
    "known_auroc": "AUROC, known",
}  # fmt: skip


@command(group="Analysis", order=27, summary="methods of circuit discovery on networks whose answers are known")
@dataclass(frozen=True, kw_only=True)
class BenchCircuits(Command):
    """Score the methods of `circuits rank` where the answer is known.

    On scenes: which units, and edges, of the embedded network make the score of a class fall when a part is removed,
    moved or replaced, for every class and each of its parts. On planted networks: 20 small ones whose edges were set
    by hand, or trained in. Areas under curves of size (CMD: smaller is better; CPR: larger), agreement with exact
    patching, and with what is known, as means over tasks with 95 % intervals.

    Example:
        circuits bench circuits --on planted
        circuits bench circuits --on scenes --change moved --of units
        circuits bench circuits --classes car --methods gradient --methods random --json
    """

    on: Literal["all", "scenes", "planted"] = "all"
    """Which networks."""
    change: Literal["removed", "moved", "replaced"] = "removed"
    """What is done to the part, on scenes."""
    of: Literal["both", "units", "edges"] = "both"
    """What is ranked."""
    methods: Many = ()
    """Method of `circuits rank`; may be repeated. By default all."""
    classes: Many = ()
    """Class of scenes; may be repeated. By default all that are made of parts."""
    pairs: int = 32
    """Minimal pairs of scenes to rank on, and as many to try circuits on."""
    network: str = "scenes"
    """The network that scenes are shown to: one of their classes and layers."""

    def run(self, session: Session) -> CommandResult:
        """Both tables."""
        from circuits.tracing.benchmark import planted_table, scenes_table
        from circuits.tracing.rankings.unit_scores import METHODS

        self.check_least("pairs", least=2)
        if self.on == "planted" and (self.classes or self.network != "scenes"):
            raise UsageError("--classes and --network are of scenes: leave out --on planted")
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise UsageError(f"--methods {unknown[0]}: known are {', '.join(METHODS)}")
        options: dict[str, Any] = {
            "methods": list(self.methods) or METHODS, "of": ("units", "edges") if self.of == "both" else (self.of,)
        }  # fmt: skip
        tables = []
        if self.on != "planted":
            from circuits.network.model import load

            model = load(self.network, device=self.device)
            with session.progress("scenes, method") as report:
                scenes = scenes_table(
                    self.change, model=model, classes=list(self.classes) or None, pairs=self.pairs, seed=self.seed,
                    **options, **reporting(report),
                )  # fmt: skip
            tables.append(scenes)
        if self.on != "scenes":
            with session.progress("planted networks, method") as report:
                tables.append(planted_table(**options, **reporting(report)))

        def show(console: Console) -> None:
            for result in tables:
                _show(console, result)

        return CommandResult({"tables": [result.describe() for result in tables]}, show)


def _show(console: Console, result: BenchmarkTable) -> None:
    rows = [[score.of, score.method, *(_cell(score.mean(name)) for name in MEASURES)] for score in result.scores]
    title = f"{result.name}: {len(result.scores[0].tasks)} tasks, {result.images} images to rank on"
    console.print(table(["of", "method", *MEASURES.values()], rows, title=title))
    if result.unused:
        falls = ", ".join(f"{name} ({fall:.1f})" for name, fall in result.unused.items())
        console.print(Text(f"left out, since the class score falls by less than 1: {falls}", style="dim"))
    console.print(Text(f"{result.seconds:.0f} s of CPU time", style="dim"))
    console.print()


def _cell(estimate: Estimate | None) -> str:
    return "" if estimate is None else f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
