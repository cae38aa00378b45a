"""`circuits sae eval`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command
from apps.cli.sae_sites import (
    OtherInputs,
    input_kind,
    inputs_for,
    model_of,
    random_indices,
    reconstructions_table,
    site_at,
    split,
    trained_on,
)
from zoo.errors import CircuitsError

if TYPE_CHECKING:
    from sae.architectures.base import SAE
    from sae.data.site import Site
    from sae.evaluation.evaluate import Evaluation
    from zoo.images.sources import Images


@command(
    group="Sparse autoencoders",
    order=20,
    summary="fidelity of an SAE: reconstruction, sparsity, accuracy or loss recovered",
)
@dataclass(frozen=True, kw_only=True)
class EvaluateSAE(OtherInputs):
    """What an SAE keeps: of the activations it reads, and of what the network predicts when its reconstruction takes
    their place everywhere. Beside it stand the network as it is, the layer's mean, zero, and the layer's own channels
    and random directions with as many active.

    A transcoder takes the place of the block between its two layers. Beside it stand the mean, zero, the linear map of
    least squared error, fitted on what it was trained on, and with --output-sae an SAE of the block's output.

    By default on the images or texts it was trained on and, apart from them, on those held out.

    Example:
        circuits sae eval saes/mixed4c
        circuits sae eval saes/mixed4c --images other-photos --out evaluation
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the SAE."""
    address: str | None = None
    """Where it reads, model/layer, if its file does not say."""
    output_sae: Path | None = None
    """Of a transcoder: folder of an SAE of its second layer, to compare with."""
    labels: Literal["auto", "order", "none"] = "auto"
    """The right classes: by the images' names or manifest, in order (one image per class), or unknown."""

    def run(self, session: Session) -> CommandResult:
        """The figures, on each set of images."""
        from sae.evaluation.evaluate import evaluate
        from sae.formats import load

        elapsed = clock()
        loaded = load(self.folder)
        window = loaded.metadata.get("window")
        patch = window["size"] if isinstance(window, dict) else None
        site = site_at(self, self._address(loaded.metadata), named_by_user=self.address is not None, patch=patch)
        beside = self._beside(loaded)
        evaluations: dict[str, Evaluation] = {}
        for name, (inputs, labels) in self._sets(loaded.metadata, site).items():
            with session.progress(f"evaluating on {name} {input_kind(site)}") as report:
                evaluations[name] = evaluate(
                    loaded, site, inputs, labels=labels, seed=self.seed, **beside, **reporting(report)
                )
        document = {
            "sae": str(self.folder), "site": site.address,
            "evaluations": {name: evaluation.describe() for name, evaluation in evaluations.items()},
        }  # fmt: skip

        def show(console: Console) -> None:
            for name, evaluation in evaluations.items():
                _show_evaluation(console, f"{name} {input_kind(site)}", evaluation)
            console.print(Text(f"{elapsed():.0f} s", style="dim"))

        return CommandResult(document, show)

    def _beside(self, loaded: SAE) -> dict[str, Any]:
        """What a transcoder is compared with: an SAE, and what the linear map is fitted on, if that is still there."""
        from sae.formats import load

        if not loaded.transcodes:
            if self.output_sae is not None:
                raise UsageError(f"--output-sae is compared with a transcoder; {self.folder} is an SAE")
            return {}
        about = loaded.metadata.get("data", {})
        try:
            data = trained_on(self.folder, loaded.metadata).data
        except (CircuitsError, UsageError):
            if not (self.images or self.text):
                raise
            return {"output_sae": load(self.output_sae) if self.output_sae else None}
        training, _ = split(data, float(about["held_out"]), int(about["seed"]))
        return {"training": training, "output_sae": load(self.output_sae) if self.output_sae else None}

    def _address(self, metadata: dict[str, Any]) -> str:
        """Where the SAE reads."""
        if self.address is not None:
            return self.address
        model, layer = (metadata.get(key) for key in ("model", "layer"))
        if not isinstance(model, str) or not isinstance(layer, str):
            raise UsageError(f"{self.folder} does not say where it reads: give --address MODEL/LAYER")
        return f"{model_of(self.folder, metadata)}/{layer}"

    def _sets(self, metadata: dict[str, Any], site: Site) -> dict[str, tuple[Any, list[int] | None]]:
        """What to evaluate on, by name, with the right classes of images."""
        sources = self.images if self.text is None else (self.text,)
        if sources:
            data = inputs_for(str(site.metadata["model"]), sources, self.limit, self.seed).data
            return {"given": (data, self._labels(data, site))}
        training_data = metadata.get("data", {})
        data = trained_on(self.folder, metadata).data
        labels = self._labels(data, site)
        if labels is not None:
            data = _with_labels(data, labels)
        training, held_out = split(data, float(training_data["held_out"]), int(training_data["seed"]))
        sets = {"training": training} | ({} if held_out is None else {"held-out": held_out})
        if self.limit is not None:
            few = {n: random_indices(len(some), min(len(some), self.limit), self.seed) for n, some in sets.items()}
            sets = {n: some.subset(few[n]) for n, some in sets.items()}
        return {name: (some, None if labels is None else some.labels) for name, some in sets.items()}

    def _labels(self, data: Any, site: Site) -> list[int] | None:
        """The right class of each image, -1 where unknown; None for texts, which have their own."""
        from zoo.images.classes import labels_by_name, labels_counted_as

        model = getattr(site, "model", None)
        if model is None:
            return None
        if self.labels == "none":
            return [-1] * len(data)
        if self.labels == "order":
            if len(data) != len(model.classes):
                counts = f"{len(data)} images, {len(model.classes)} classes"
                raise UsageError(f"--labels order takes one image per class; {counts}")
            return list(range(len(data)))
        if data.labels is not None:
            return labels_counted_as(data.labels, data.classes, model.classes)
        return labels_by_name(data.ids, model.classes) or [-1] * len(data)


def _with_labels(images: Images, labels: list[int]) -> Images:
    import copy

    same = copy.copy(images)
    same.labels = labels
    return same


def _show_evaluation(console: Console, name: str, evaluation: Evaluation) -> None:
    fidelity = evaluation.reconstruction
    console.print(Text.assemble((name, "bold"), f"  {evaluation.inputs['count']}, {fidelity.samples:,} positions"))
    console.print(reconstructions_table({name: fidelity}))
    labeled = evaluation.ways["clean"].count > 0
    rows = []
    for way, behavior in evaluation.ways.items():
        row = [way]
        if labeled:
            compared = way not in ("clean", "mean", "zero")
            recovered = [f"{100 * evaluation.recovered(m, way):.1f} %" if compared else "" for m in ("top1", "loss")]
            row += [f"{behavior.top1:.3f}", f"{behavior.top5:.3f}", recovered[0], f"{behavior.loss:.3f}", recovered[1]]
        rows.append([*row, f"{behavior.agreement:.3f}", f"{behavior.kl:.3f}"])
    columns = ["top-1", "top-5", "recovered", "loss", "recovered"] if labeled else []
    console.print(table(["activations", *columns, "agreement", "KL"], rows, right=" " + "r" * (len(columns) + 2)))
    if not labeled:
        console.print(
            "no class of these images is known, so accuracy and loss are not: name folders or files after the model's "
            "classes, give a manifest of `circuits images`, or --labels order"
        )
    if evaluation.branches:
        beside = "channels" if evaluation.own == "sae" else "linear"
        console.print(
            table(
                ["branch", "FVU", beside],
                [
                    [b, f"{v[evaluation.own]:.3f}", f"{v.get(beside, float('nan')):.3f}"]
                    for b, v in evaluation.branches.items()
                ],
                right=" rr",
            )
        )
    if labeled:
        console.print(Text("recovered: of the loss from replacing the layer by its mean", style="dim"))
