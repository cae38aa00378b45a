"""`circuits sae features`: top activating examples of an SAE's latents."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Session, loading_code, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command
from apps.cli.sae_sites import OtherInputs, inputs_for, is_language, model_of, random_indices, site_at, trained_on
from apps.images import open_sources

if TYPE_CHECKING:
    from collections.abc import Sequence

    from circuits.common.examples import Example
    from circuits.dataset.scan_results import Scan
    from circuits.network.model import Model
    from circuits.units.channel_dissection import Dissection
    from sae.architectures.base import SAE
    from zoo.images.sources import Images


@command(group="Sparse autoencoders", order=30, summary="top activating examples of latents, on a page")
@dataclass(frozen=True, kw_only=True)
class ShowFeatures(OtherInputs):
    """Show the top activating examples of an SAE's latents, and examples over their whole range of activation: of a
    random sample of those that are ever active, or of those named. With --dossiers each gets a page of its own:
    histogram, examples from strong to weak, incoming and outgoing weights, and nearby latents.

    With --channel a channel of the layer is decomposed instead: which latents write to it, each with its own examples.

    Of a language model's SAE each latent is shown with passages, from strong to weak, and with its promoted tokens.

    The responses of all latents are scanned once and kept in --store, by default the folder `scan` beside the SAE's
    files.

    Example:
        circuits sae features saes/mixed4c --out features
        circuits sae features saes/mixed4c --latent 1021 --latent 7 --dossiers --out two
        circuits sae features saes/mixed4c --channel 436 --out decomposed
    """

    folder: tyro.conf.Positional[Path]
    """Folder of the SAE."""
    latents: int = 20
    """How many latents to sample at random, from those that are ever active."""
    latent: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Number of a latent to show instead; may be repeated."""
    channel: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Number of a channel to decompose; may be repeated."""
    examples: int = 9
    """Images shown of each: so many of the strongest, and so many over the whole range of activation."""
    dossiers: tyro.conf.FlagCreatePairsOff[bool] = False
    """A page for each latent."""
    visualize: int = 0
    """With --channel: steps of feature visualization for the channel and its latents; 0 makes none."""
    store: Path | None = None
    """Folder of the scan."""

    files: ClassVar[tuple[str, ...]] = ("*.html", "*.png")

    def run(self, session: Session) -> CommandResult:
        """Latents and their examples; or channels decomposed."""
        self.check_least("latents", "examples")
        from sae.data.attach import attach_folder
        from sae.formats import load
        from zoo.images.sources import open_images

        elapsed = clock()
        loaded = load(self.folder)
        metadata = loaded.metadata
        model_name = model_of(self.folder, metadata)
        if is_language(model_name):
            return self._texts(session, loaded, elapsed)
        if self.images:
            images = open_sources(self.images, self.limit, self.seed)
        else:
            images = open_images(trained_on(self.folder, metadata).data, limit=self.limit, seed=self.seed)
        model = self.load(model_name)
        site, own = attach_folder(model, self.folder)
        if self.channel:
            if loaded.transcodes:
                raise UsageError("--channel decomposes a channel by the SAE of its layer; this is a transcoder")
            return self._dissected(session, model, site.space, own, images)
        space = f"{site.space}~{own}"
        scanned = self._scan(session, model, space, images)
        return self._result(session, model, space, scanned, images, elapsed)

    # -- texts ------------------------------------------------------------------------------------------

    def _texts(self, session: Session, loaded: SAE, elapsed: Any) -> CommandResult:
        import numpy as np

        from circuits.network.address import basis_name
        from sae.language import LanguageSite, activity, text_features

        if self.channel:
            raise UsageError(
                "--channel decomposes channels of a CNN; for a language model there are --latent and --latents"
            )
        site = site_at(self, f"{loaded.metadata['model']}/{loaded.metadata['layer']}")
        assert isinstance(site, LanguageSite)
        if self.text is None:
            inputs = trained_on(self.folder, loaded.metadata).data
        else:
            inputs = inputs_for(site.lm.name, (self.text,), None, self.seed).data
        if self.limit is not None and self.limit < len(inputs):
            inputs = inputs.subset(random_indices(len(inputs), self.limit, self.seed))
        own = basis_name(self.folder)
        with session.progress(f"latents of {site.address}") as report:
            activities = activity(loaded, site, inputs, name=own, **reporting(report))
        if self.latent:
            chosen = list(self.latent)
        else:
            live = activities.live
            chosen = sorted(live[random_indices(len(live), min(self.latents, len(live)), self.seed)].tolist())
        features = text_features(loaded, activities, chosen, top=self.examples, seed=self.seed)
        space = f"{site.address}~{own}"
        document = {
            "sae": str(self.folder), "space": space, "latents": loaded.latents, "live": len(activities.live),
            "texts": {"name": inputs.name, "count": len(inputs), "digest": inputs.digest},
            "features": [feature.describe() for feature in features],
        }  # fmt: skip

        def show(console: Console) -> None:
            rows = [
                [f.unit.rpartition("~")[2], f"{100 * f.density:.3g} %", f"{f.maximum:.3g}",
                 " ".join(_token(p) for p in f.top[:6]), " ".join(word.strip() for word, _ in f.promoted[:5])]
                for f in features
            ]  # fmt: skip
            console.print(
                table(["latent", "of tokens", "strongest", "top tokens", "promoted tokens"], rows, right=" rr  ")
            )
            text = f"{len(activities.live)} of {loaded.latents} latents are active on {activities.tokens:,} tokens"
            console.print(Text(f"{text}; {elapsed():.0f} s", style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot.sae.text_latent_page import texts_page

            facts = [
                ("latents", f"{loaded.latents:,}"),
                ("active on any token", f"{len(activities.live):,}"),
                ("active at a token, on average", f"{float(np.sum(activities.density)):.1f}"),
                ("tokens", f"{activities.tokens:,}"),
            ]
            python = (
                "import sae\nfrom sae.language import LanguageSite, activity, text_features\n"
                "from zoo.networks.language import load_language\n\n"
                f"site = LanguageSite(load_language({site.lm.name!r}), {site.site!r})\n"
                f"s = sae.load({str(self.folder)!r})\n"
                f"features = text_features(s, activity(s, site, TEXTS), {chosen})"
            )
            page = texts_page(
                features, title=space, facts=facts, provenance=activities.provenance, command=session.invocation,
                python=python,
            )  # fmt: skip
            (folder / "index.html").write_text(page, encoding="utf-8")

        return CommandResult(document, show, write)

    # -- latents ------------------------------------------------------------------------------------

    def _scan(self, session: Session, model: Model, space: str, images: Images) -> Scan:
        from circuits.dataset.scan import scan
        from circuits.dataset.streaming_statistics import Plan

        store = self.folder / "scan" if self.store is None else self.store
        with session.progress(f"scanning {space}") as report:
            return scan(model, images, store, layers=[space], plan=Plan(seed=self.seed), **reporting(report))

    def _result(
        self, session: Session, model: Model, space: str, scanned: Scan, images: Images, elapsed: Any
    ) -> CommandResult:  # fmt: skip
        import numpy as np

        layer = scanned.layer(space)
        live = np.flatnonzero(layer.active_images > 0)
        if self.latent:
            chosen = [model.unit(f"{space}:{i}").index or 0 for i in self.latent]
        else:
            sample = np.random.default_rng(self.seed).permutation(live)[: self.latents]
            chosen = sorted(int(i) for i in sample)
        units = [layer.unit(i) for i in chosen]
        document: dict[str, Any] = {
            "sae": str(self.folder),
            "space": f"{model.name}/{space}",
            "images": {"name": images.name, "count": len(images), "digest": images.digest},
            "latents": len(layer),
            "live": len(live),
            "features": [u.describe(self.examples) for u in units],
        }

        def show(console: Console) -> None:
            rows = [
                [u.unit, f"{100 * u.density:.3g} %", u.active_images, f"{u.maximum:.3g}", _ids(u.top)] for u in units
            ]
            columns = ["latent", "of positions", "images", "strongest", "top activating images"]
            console.print(table(columns, rows, right=" rrr "))
            text = f"{len(live)} of {len(layer)} latents are active on {len(images)} images; {elapsed():.0f} s"
            console.print(Text(text, style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot.sae.latent_page import latents_page

            links = {}
            if self.dossiers:
                for unit in units:
                    name = f"{unit.unit.rpartition(':')[2]}.html"
                    (folder / name).write_text(self._dossier(session, model, unit.unit, scanned), encoding="utf-8")
                    links[unit.unit] = name
            page = latents_page(
                scanned, space, chosen, examples=self.examples, links=links, command=session.invocation,
                python=_python(model.name, self.weights, self.folder, space), images=images,
            )  # fmt: skip
            (folder / "index.html").write_text(page, encoding="utf-8")

        return CommandResult(document, show, write)

    def _dossier(self, session: Session, model: Model, unit: str, scanned: Scan) -> str:
        import sae.steering.dossier_section  # noqa: F401 (likewise)
        import sae.superposition.dossier_section  # noqa: F401 (adds its section)
        from circuits.plot.units.dossier import dossier_page
        from circuits.units.dossier import explain

        dossier = explain(model, unit, scanned, seed=self.seed)
        space = unit.rpartition("/")[2].rpartition(":")[0]
        return dossier_page(
            dossier, scanned, command=session.invocation, python=_python(model.name, self.weights, self.folder, space)
        )  # fmt: skip

    # -- channels -----------------------------------------------------------------------------------

    def _dissected(self, session: Session, model: Model, layer: str, own: str, images: Images) -> CommandResult:
        from circuits.units.channel_dissection import dissect

        dissections: list[Dissection] = []
        for channel in self.channel:
            with session.progress(f"decomposing {layer}:{channel}") as report:
                dissections.append(
                    dissect(model, f"{layer}:{channel}", own, images, each=self.examples, **reporting(report))
                )
        document = {"sae": str(self.folder), "channels": [dissection.describe() for dissection in dissections]}

        def show(console: Console) -> None:
            for dissection in dissections:
                shares = dissection.shares
                summary = ", ".join(f"{name} {100 * share:.0f} %" for name, share in shares.items())
                console.print(Text.assemble((dissection.unit, "bold"), f"  {summary}"))
                rows = [
                    [
                        w.unit,
                        f"{100 * w.share:.0f} %",
                        f"{w.weight:.2g}",
                        w.leads,
                        ", ".join(e.id for e in w.examples[:3]),
                    ]
                    for w in dissection.writers
                ]
                console.print(
                    table(["latent", "share", "weight", "leads on", "top activating images"], rows, right=" rrr ")
                )

        def write(folder: Path) -> None:
            from circuits import plot
            from circuits.plot.sae.channel_dissection import dissection_figure

            for dissection in dissections:
                optimized = self._visualized(model, dissection)
                figure = dissection_figure(
                    dissection, images, model.input, visualizations=optimized, columns=self.examples
                )
                plot.save_figure(figure, folder / f"{layer}-{dissection.unit.rpartition(':')[2]}.png")

        return CommandResult(document, show, write)

    def _visualized(self, model: Model, dissection: Dissection) -> dict[str, Any]:
        if not self.visualize:
            return {}
        from circuits.plot.drawing.crops import pixels
        from circuits.visualization import visualize

        units = [dissection.unit, *(w.unit for w in dissection.writers)]
        results = visualize(model, units, steps=self.visualize, seed=self.seed)
        return {r.unit: pixels(r.image, r.channels) for r in results if r.status == "ok"}


def _token(passage: Any) -> str:
    return str(passage.words[passage.at]).strip() or "_"


def _ids(examples: Sequence[Example]) -> str:
    return ", ".join(e.id for e in examples[:3])


def _python(model: str, weights: str | None, folder: Path, space: str) -> str:
    return (
        "import circuits\nfrom sae.data.attach import attach_folder\n\n"
        f"{loading_code(model, weights)}\n"
        f"attach_folder(model, {str(folder)!r})\n"
        f"scan = circuits.scan(model, IMAGES, {str(folder / 'scan')!r}, layers=[{shlex.quote(space)!r}])"
    )
