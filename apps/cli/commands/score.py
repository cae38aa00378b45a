"""`circuits score`: how much of a unit a traced circuit explains."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.trace import by_mask_command, check_random, scored
from apps.cli.common import CommandResult, ImageOptions, Session, check_known
from apps.cli.output.circuit_text import show_offer, show_score
from apps.cli.registry import command


@command(
    group="Analysis", order=30, summary="faithfulness and completeness of a traced circuit, against random circuits"
)
@dataclass(frozen=True, kw_only=True)
class ScoreCircuit(ImageOptions):
    """Try a traced circuit on images: how much of its target's response does it carry?

    Faithfulness: the share of the response's variance, over positions and images, that is left when every unit
    outside the circuit is set to its mean. Completeness: the share that is lost when only the circuit's units are.
    Minimality: what each unit is worth. All beside random circuits with as many units in each layer, sampled among
    the units that act most on the target, because a number alone says little. --mask puts the circuit beside a
    learned mask of its size: how much of what so few units can keep does it keep?

    Example:
        circuits trace scenes/mixed4a:11 --no-score --out report
        circuits score report/circuit.json --images scenes:300 --mask
    """

    circuit: tyro.conf.Positional[Path]
    """A circuit.json that `circuits trace --out DIR` wrote, or its folder."""
    random: int = 50
    """How many random circuits to compare with."""
    baseline: Literal["mean", "resample", "zero"] = "mean"
    """What an ablated unit is set to."""
    against: str | None = None
    """Folder of counterfactual images, one for each image in the order of their names, as the baseline."""
    mask: bool = False
    """Also learn a mask of the circuit's size, on half of the images, and try both on the other half."""
    keep_error: bool = False
    """Where the circuit's sources are latents (--sae), leave what they do not reconstruct as it is."""

    files: ClassVar[tuple[str, ...]] = ("circuit.json",)

    def run(self, session: Session) -> CommandResult:
        """Score again, on these images."""
        from circuits.errors import CircuitsError
        from circuits.plot.drawing.wording import ENOUGH
        from circuits.tracing.circuit import Circuit

        check_random(self.random)
        path = self.circuit / "circuit.json" if self.circuit.is_dir() else self.circuit
        circuit = Circuit.load(path)
        check_known(circuit.model, None, circuit.provenance.get("card"))
        model = self.load(circuit.model)
        digest = circuit.provenance.get("weights")
        if isinstance(digest, str) and len(digest) == 64 and digest != model.digest:
            raise CircuitsError(
                f"{path} was traced with other weights of {model.name} ({digest[:12]}, here {model.digest[:12]}); "
                "trace it again, or name the file with --weights"
            )
        images = self.open_images(model.name)
        circuit = scored(
            session, model, circuit, images, self.random, self.seed, baseline=self.baseline,
            against=self.counterfactuals(self.against), mask=self.mask, keep_error=self.keep_error,
        )  # fmt: skip
        score: dict[str, Any] = circuit.to_json()["score"]
        assert circuit.score is not None
        control = circuit.score.control

        def show(console: Console) -> None:
            console.print(Text.assemble((circuit.target, "bold"), f"  {len(circuit.nodes) - 1} other units"))
            show_score(console, circuit)
            show_offer(console, circuit, by_mask_command(self, model, circuit))
            if circuit.score is not None and circuit.score.comparison is None and circuit.score.faithfulness < ENOUGH:
                more = f"How much of what so few units can keep that is: {session.invocation} --mask"
                console.print(Text(more, style="yellow"), soft_wrap=True)

        def write(folder: Path) -> None:
            circuit.save(folder / "circuit.json")

        return CommandResult(
            {"target": circuit.target, "model": circuit.model, "score": score, "control": control}, show, write
        )
