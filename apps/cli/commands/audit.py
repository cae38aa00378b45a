"""`circuits audit`: what a classifier relies on that it should not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Many, Session, loading_code, reporting, resumable, sae_option
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from circuits.dataset.audit.results import Audit, Effect
    from circuits.network.model import Model
    from zoo.images.sources import Images

TRAINED = "saes"
"""Folder of the SAEs that an audit trained."""
SAE_LATENTS, SAE_ACTIVE, SAE_STEPS, SAE_BATCH = 4, 8, 1500, 1024
"""Latents a channel and latents active at a position, steps, and positions a step."""


@command(group="Analysis", order=30, summary="what a classifier relies on off the object, and what happens without it")
@dataclass(frozen=True, kw_only=True)
class AuditModel(ImageOptions):
    """Look for what a classifier relies on that is not the object, class by class, and try each suspect.

    One half of the images finds units that carry a class from off the object, the other tries them: removed, and put on
    images of other classes, beside 20 other units that change as much. Images lie in folders called after the classes.
    With --annotations, a COCO file that outlines the objects, a suspect can be proven; without, the most suspicious
    come first, and you decide by their images. With --out: index.html for people who do not read code, audit.json,
    audit.result for Python, audit.png; the same command goes on where it was interrupted.

    Example:
        circuits audit mine --model mine.py:make --images photographs --annotations outlines.json --out audit
        circuits audit googlenet-bvlc --images photographs --classes tench --classes ostrich
        circuits audit mine --model mine.py:make --images photographs --train-sae layer4 --out latents
        circuits audit scenes --images scenes:1300 --classes car --out car-audit
    """

    model: tyro.conf.Positional[str]
    """Name of a model, as `circuits models` lists them."""
    classes: Many = ()
    """A class to audit, by name or number; may be repeated. By default all that have images."""
    annotations: Path | None = None
    """COCO file with the outlines of the objects; file names in it are those in the folder of images."""
    groups: str | None = None
    """Groups of the images: a CSV file with the columns path,group or path,class,group; or `folders`, where images lie
    in CLASS/GROUP/."""
    layers: Many = ()
    """A layer whose units to look at, or LAYER~NAME for the latents of an SAE (--sae); may be repeated. By default the
    SAEs that are attached, else the last two layers of the trunk with positions."""
    train_sae: Many = ()
    """A layer to train an SAE on, whose latents are then looked at; may be repeated. Kept in OUT/saes/LAYER."""
    top: int = 5
    """Suspects of each class to try."""
    random: int = 20
    """Controls of each."""
    describe: int = 8
    """How many of the first suspects get a visualization and the classes that they raise; 0: nor any labels."""

    replace: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin anew, where --out holds an audit of ours, of whatever settings."""

    fills_out: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = (
        "index.html",
        "index.json",
        "class-*.result",
        "descriptions.result",
        "audit.result",
        "audit.png",
        "training-*.safetensors",
        f"{TRAINED}/*/*",
    )

    def run(self, session: Session) -> CommandResult:
        """The audit, and what prints and writes it."""
        from circuits.dataset.audit.audit import audit

        self.check_least("top", "random")
        self.check_least("describe", least=0)
        elapsed = clock()
        model = self.load(self.model)
        images = self.open_images(model.name)
        trained = [self._trained(session, model, images, layer) for layer in self.train_sae]
        layers = [*self.layers, *trained] or [f"{layer}~{name}" for layer, name in model.bases] or None
        with session.progress(f"auditing {model.name}") as report, resumable(self.out):
            result = audit(
                model,
                images,
                classes=list(self.classes) or None,
                annotations=self.annotations,
                groups=self.groups,
                layers=layers,
                top=self.top,
                random=self.random,
                describe=self.describe,
                store=self.out,
                seed=self.seed,
                **reporting(report),
            )
        seconds = elapsed()

        def show(console: Console) -> None:
            _show(console, result)
            console.print(Text(f"{len(images)} images of {images.name}, {seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot import save_figure

            result.report(
                folder / "index.html", command=session.invocation, python=self._python(model.name, layers or [])
            )
            result.save(folder / "audit.result")
            save_figure(result.plot(), folder / "audit.png")

        together = {"joint": [joint.scalars() for joint in result.joint]}
        return CommandResult({"audit": result.describe(), "suspects": result.records(), **together}, show, write)

    def _own(self, layers: Sequence[str]) -> list[str]:
        """Those of the latents of SAEs that were trained here."""
        return [name for name in layers if name.endswith("~own")] if self.train_sae else []

    def _trained(self, session: Session, model: Model, images: Images, address: str) -> str:
        """The latents of an SAE that is trained on a layer, or was, on the images that suspects are found on."""
        import sae
        from circuits.dataset.audit.inputs import inputs_of
        from sae.data.attach import attach_folder
        from sae.formats import load

        site = sae.VisionSite(model, address)
        layer = site.layer.name
        if site.layer.size in (None, (1, 1)):
            raise UsageError(f"{site.address} has no positions: where its evidence lies is not known; train on another")
        folder = None if self.out is None else self.out / TRAINED / layer
        checkpoint = None if self.out is None else self.out / f"training-{layer}.safetensors"
        given = inputs_of(
            model, images, labels=None, classes=list(self.classes) or None, annotations=self.annotations,
            groups=self.groups, seed=self.seed,
        )  # fmt: skip
        stream = site.stream(given.images.subset(given.finding.tolist()), batch_size=SAE_BATCH)
        if folder is not None and (folder / "cfg.json").is_file():
            if load(folder).metadata.get("inputs") != stream.metadata["inputs"]:
                raise UsageError(
                    f"{folder} holds an SAE of other images: give another folder, or begin anew (--replace)"
                )
        else:
            config = sae.TopK(latents=SAE_LATENTS * site.d, k=min(SAE_ACTIVE, site.d))
            with session.progress(f"training an SAE on {site.address}") as report:
                run = sae.train(
                    stream, config, steps=SAE_STEPS, lr=2e-3, seed=self.seed, checkpoint=checkpoint,
                    checkpoint_every=300, **reporting(report),
                )[0]  # fmt: skip
            if folder is None:
                site.attach("own", run.sae)
                return f"{layer}~own"
            sae.save(folder, run)
        if checkpoint is not None:
            checkpoint.unlink(missing_ok=True)
        attach_folder(model, folder, "own")
        return f"{layer}~own"

    def _python(self, model: str, layers: Sequence[str]) -> str:
        options = {
            "classes": list(self.classes), "annotations": None if self.annotations is None else str(self.annotations),
            "groups": self.groups, "layers": list(layers), "seed": self.seed,
        }  # fmt: skip
        words = "".join(f", {name}={value!r}" for name, value in options.items() if value)
        words += "" if self.describe == 8 else f", describe={self.describe}"
        folders = [*map(sae_option, self.sae), *(("own", f"{self.out}/{TRAINED}/{n[:-4]}") for n in self._own(layers))]
        attach = [f"attach_folder(model, {folder!r}, {name!r})" for name, folder in folders]
        return "\n".join(
            [
                "import circuits",
                *(["from sae.data.attach import attach_folder"] if attach else []),
                "from zoo import open_images",
                "",
                loading_code(model, self.weights),
                *attach,
                f"audit = circuits.audit(model, {self.images_code}{words})",
                "audit.report('index.html')",
                "",
            ]
        )


def _show(console: Console, result: Audit) -> None:
    from circuits.plot.audit.page import lead, together_sentence

    console.print(Text(lead(result), style="bold"))
    rows = [
        [
            Text(s.unit.rpartition("/")[2], style="bold" if s.verdict == "shortcut" else ""),
            s.class_name,
            s.verdict,
            f"{s.share:.2f}",
            f"{s.off:.2f}",
            _effect(s.removal),
            _effect(s.insertion),
            "" if s.background is None else _effect(s.background),
        ]
        for s in result.suspects[:10]
    ]
    console.print(table(
        ["suspect", "class", "shortcut", "share", "off", "removed", "inserted", "backgrounds"], rows, right="   rrrrr"
    ))  # fmt: skip
    for unit, label in {s.unit: s.label for s in result.suspects[:10] if s.label}.items():
        console.print(Text(f"{unit.rpartition('/')[2]}: {label}", style="dim"))
    for suspect in result.claimed:
        console.print(
            Text(f"{suspect.unit.rpartition('/')[2]} is a shortcut for {suspect.class_name}: {suspect.reason}")
        )
    for joint in result.joint:
        console.print(Text(together_sentence(joint)))
    for name, reason in result.omitted.items():
        console.print(Text(f"{name}: not audited, {reason}", style="dim"))
    for group in result.groups[:4]:
        console.print(f"{group.class_name}, {group.group}: {group.accuracy.value:.2f} of {group.n_images} images right")
    console.print(Text("off: of its activation from pixels off the object. Changes are in points, beside them the "
                       "control's 95 %.", style="dim"))  # fmt: skip


def _effect(effect: Effect) -> str:
    mark = " *" if effect.beyond else ""
    return f"{round(100 * effect.change.value):+d} ({round(100 * effect.limit):+d}){mark}"
