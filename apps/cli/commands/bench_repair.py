"""`circuits bench repair`: repairs of networks whose shortcut was planted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Many, Session, reporting
from apps.cli.output.console import table
from apps.cli.registry import command


@command(group="Analysis", order=29, summary="repairs of networks that learned a planted shortcut")
@dataclass(frozen=True, kw_only=True)
class BenchRepair(Command):
    """Repair the networks of scenes-shortcuts, and hold them against networks that were trained without.

    For each network: the accuracy on its worst group as it is, repaired, with random units edited instead (95 % of the
    draws), and with the last layer trained anew on the same balanced images; beside the networks without a shortcut on
    the same images, and what the repair costs on images without the cue. See docs/repair.md.

    Example:
        circuits bench repair
        circuits bench repair --networks sky-truck-95 --random 20 --json
        circuits bench repair --networks tag-bus-95 --weights other-seed.safetensors
    """

    networks: Many = ()
    """Shortcut, such as tag-bus-95; may be repeated. By default the ten that are packaged."""
    weights: Path | None = None
    """Weights of one network, as `python -m tools.shortcuts.train` writes them."""
    count: int = 400
    """Scenes to choose units on, and as many to judge on; a multiple of 16."""
    random: int = 20
    """How many times other units, about as active, are edited instead."""

    def run(self, session: Session) -> CommandResult:
        """The table."""
        from circuits.dataset.audit.repair.benchmark import COST, WITHIN, repair_table
        from zoo.networks.shortcuts import PLANTED

        self.check_least("random", least=0)
        with session.progress("repairing networks") as report:
            result = repair_table(
                self.networks or PLANTED, weights=None if self.weights is None else str(self.weights),
                images=self.count, random=self.random, seed=self.seed + 1, **reporting(report),
            )  # fmt: skip
        records = result.records()

        def show(console: Console) -> None:
            head = [
                "network", "units", "worst group", "repaired", "random", "retrained", "both", "clean", "mixed",
                "without cue", "repaired",
            ]  # fmt: skip
            console.print(table(head, [_cells(row) for row in records], title="accuracy on the worst group"))
            passed = sum(row["passes"] for row in records)
            console.print(Text(
                f"{passed} of {len(records)} within {WITHIN:.0%} of the mixed network's worst group, losing at most "
                f"{COST:.0%} of accuracy; {result.seconds:.0f} s of CPU time",
                style="dim",
            ))  # fmt: skip

        return CommandResult({"rows": records, "seconds": result.seconds, "provenance": result.provenance}, show)


def _cells(row: dict[str, Any]) -> list[str]:
    def share(name: str) -> str:
        return "" if row[name] is None else f"{row[name]:.3f}"

    names = ("worst_retrained", "worst_both", "worst_clean", "worst_mixed", "clean_before", "clean_repaired")
    return [
        row["network"], str(row["units"]), share("worst_before"), share("worst_repaired"),
        f"{row['random_low']:.3f} to {row['random_high']:.3f}", *map(share, names),
    ]  # fmt: skip
