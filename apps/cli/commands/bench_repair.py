"""`circuits bench repair`: repairs of networks whose shortcut was planted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Many, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.cli.registry import command

WAYS = ("repaired", "retrained", "both", "tuned")
"""Units held still, the last layer trained anew, both, and every weight trained on."""


@command(group="Analysis", order=29, summary="repairs of networks that learned a planted shortcut")
@dataclass(frozen=True, kw_only=True)
class BenchRepair(Command):
    """Repair the networks of scenes-shortcuts, and hold them against networks that were trained without.

    For each network: the accuracy on its worst group as it is, with learned units held still, with random units held
    instead (95 % of the draws), with the last layer trained anew on the same balanced images, with both, and with every
    weight trained on (beside the same changes of random weights, and the same training on images that are not
    balanced); beside the networks without a shortcut on the same images, and what each costs on images without the cue.
    See docs/repair.md.

    Example:
        circuits bench repair
        circuits bench repair --networks sky-truck-95 --random 20 --json
        circuits bench repair --networks tag-bus-95 --weights other-seed.safetensors
    """

    networks: Many = ()
    """Shortcut, such as tag-bus-95; may be repeated. By default the ten that are packaged."""
    weights: Path | None = None
    """Weights of one network, as `python -m tools.shortcuts.train` writes them."""
    count: int = 800
    """Scenes to choose units on; a multiple of 16, at least 64."""
    judged: int = 2400
    """Scenes to judge on; a multiple of 16, at least 64."""
    choice: int = 0
    """Seed of the learning; --seed is that of the scenes."""
    random: int = 20
    """How many times other units, about as active, are edited instead."""

    def run(self, session: Session) -> CommandResult:
        """The table."""
        from circuits.dataset.audit.repair.benchmark import COST, WITHIN, repair_table
        from zoo.networks.shortcuts import PLANTED

        self.check_least("random", least=0)
        for name, value in (("count", self.count), ("judged", self.judged)):
            if value % 16 or value < 64:
                raise UsageError(f"--{name} is a multiple of 16, at least 64, not {value}")
        with session.progress("repairing networks") as report:
            result = repair_table(
                self.networks or PLANTED, weights=None if self.weights is None else str(self.weights),
                images=self.count, judged=self.judged, choice=self.choice, random=self.random,
                seed=self.seed + 1, **reporting(report),
            )  # fmt: skip
        records = result.records()

        def show(console: Console) -> None:
            head = [
                "network",
                "units",
                "worst group",
                "random",
                "repaired",
                "retrained",
                "both",
                "random weights",
                "unbalanced",
                "tuned",
                "mixed",
                "clean",
                "cost",
            ]
            console.print(table(head, [_cells(row) for row in records], title="accuracy on the worst group"))
            for way in WAYS:
                passed = sum(row[f"passes_{way}"] for row in records)
                near = sum(row[f"gap_{way}"] is not None and row[f"gap_{way}"] <= WITHIN for row in records)
                console.print(Text(
                    f"{way}: {near} of {len(records)} within {WITHIN:.0%} of the mixed network's worst group, {passed} "
                    f"of them losing at most {COST:.0%} of accuracy without the cue",
                    style="dim",
                ))  # fmt: skip
            console.print(Text(f"{result.seconds:.0f} s of CPU time", style="dim"))

        return CommandResult({"rows": records, "seconds": result.seconds, "provenance": result.provenance}, show)


def _cells(row: dict[str, Any]) -> list[str]:
    def way(name: str) -> str:
        if row[f"worst_{name}"] is None:
            return ""
        return f"{row[f'worst_{name}']:.3f} ({row[f'low_{name}']:.3f} to {row[f'high_{name}']:.3f})"

    costs = "/".join(f"{row[f'cost_{name}']:+.3f}" for name in WAYS if row[f"cost_{name}"] is not None)
    return [
        row["network"], str(row["units"]), f"{row['worst_before']:.3f}",
        f"{row['random_low']:.3f} to {row['random_high']:.3f}", way("repaired"), way("retrained"), way("both"),
        f"{row['random_weights_low']:.3f} to {row['random_weights_high']:.3f}", f"{row['worst_unbalanced']:.3f}",
        way("tuned"),
        f"{row['worst_mixed']:.3f}", f"{row['worst_clean']:.3f}", costs,
    ]  # fmt: skip
