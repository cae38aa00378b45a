"""`circuits publish`: a scan as a static site."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.scan import STORE
from apps.cli.common import CommandResult, Many, ModelOptions, Session, check_known, document_text, reporting, resumable
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.output.folder import Outputs
from apps.cli.registry import command
from apps.images import open_sources
from zoo.errors import in_shell

if TYPE_CHECKING:
    from circuits.dataset.scan_results import Scan
    from circuits.network.model import Model
    from circuits.tracing.circuit import Circuit
    from zoo.images.sources import Images

_TRACED_ON = 200


@command(group="Analysis", order=85, summary="a scan as a static site, for any web host")
@dataclass(frozen=True, kw_only=True)
class Publish(ModelOptions):
    """Write a scan as a static site: a page of every unit, a wall of every layer, circuits, labels, and a search.

    The site needs no server: open index.html from the disk, or put the folder on any web host. Nothing in it is fetched
    from elsewhere. Feature visualizations, labels and circuits of the store are on it. The same command again goes
    on where it was stopped, and writes anew what has changed in the store.

    Example:
        circuits scan scenes --images scenes:500
        circuits publish store --layers mixed4a --layers logits --out site
        circuits publish store --layers mixed4a --layers logits --circuits mixed4a:11 --out site
    """

    store: tyro.conf.Positional[Path] = STORE
    """Folder that the scan was kept in."""
    scan: str | None = None
    """Name of the model, where the store holds scans of several."""
    layers: Many = ()
    """A layer to show; may be repeated. By default all that were scanned."""
    circuits: Many = ()
    """A unit to trace and show the circuit of; may be repeated. Circuits saved in the store are shown in any case."""
    images: Many = ()
    """The scanned images, if they have been moved. May be repeated."""
    visualize: tyro.conf.FlagCreatePairsOff[bool] = False
    """First make the feature visualizations that the store does not have, and keep them there: seconds a unit."""
    replace: tyro.conf.FlagCreatePairsOff[bool] = False
    """Begin anew, where --out holds a site of another scan or of other layers."""

    keeps_out: ClassVar[bool] = True

    def outputs(self) -> Outputs:
        """What the command writes into `out`."""
        from circuits.plot.site.publish import FILES

        return replace(super().outputs(), patterns=FILES)

    def run(self, session: Session) -> CommandResult:
        """Write the site."""
        from apps.explorer.session.labels import Labels
        from circuits.dataset.scan_results import read_scan
        from circuits.plot.drawing.wording import counted
        from circuits.plot.site.publish import publish, scanned_layers
        from zoo.common.files import write_text_atomically

        if self.out is None:
            raise UsageError("a site is written into a folder: --out DIR")
        elapsed = clock()
        name = self._model_name()
        scan = read_scan(self.store, name)  # before the weights are read: it may be damaged, or not there
        check_known(name, self.store)
        model = self.load(name)
        images = open_sources(self.images, None, self.seed) if self.images else None
        layers = scanned_layers(model, scan, list(self.layers) or None)
        with resumable(self.out):
            if self.visualize:
                self._visualize(session, model, scan, layers)
            circuits, unreadable = self._circuits(session, model, scan, images)
            with session.progress(f"publishing {name}, unit") as report:
                site = publish(
                    model, scan, self.out,
                    layers=layers, images=images, labels=Labels(self.store).names(name), circuits=circuits,
                    visualizations=_visualizations(scan, model), polysemanticity=_polysemanticity(scan, model),
                    command=session.invocation, **reporting(report),
                )  # fmt: skip
        document: dict[str, Any] = {**site.describe(), "units": site.units, "unreadable_circuits": unreadable}
        public = {**document, "folder": self.out.name}  # where it was on this machine is nobody's business on the web
        write_text_atomically(self.out / "publish.json", document_text("publish", public))
        seconds, page = elapsed(), self.out / "index.html"

        def show(console: Console) -> None:
            rows = [
                [Text(layer, style="bold"), n, "written" if layer in site.written else "was there already"]
                for layer, n in site.layers.items()
            ]
            console.print(table(["layer", "units", ""], rows, right=" r"))
            for circuit, reason in unreadable.items():
                console.print(f"circuit {circuit} is left out: {reason}", markup=False, highlight=False)
            pages = f"{counted(site.units, 'unit')}, {counted(len(site.circuits), 'circuit')}"
            summary = f"{pages}, {site.bytes / 1e6:.1f} MB, {seconds:.1f} s"
            console.print(Text(summary, style="dim"))
            console.print(Text(f"written: {page}", style="dim"))

        return CommandResult(document, show)

    def _model_name(self) -> str:
        from circuits.dataset.scan_store import models_in

        names = models_in(self.store)
        if self.scan is not None or len(names) == 1:
            return self.scan or names[0]
        if not names:
            hint = in_shell("circuits", "scan", "MODEL", "--images", "FOLDER", "--store", self.store)
            raise UsageError(f"{self.store} holds no finished scan; make one: {hint}")
        raise UsageError(f"{self.store} holds scans of {', '.join(names)}: choose one with --scan")

    def _circuits(
        self, session: Session, model: Model, scan: Scan, images: Images | None
    ) -> tuple[dict[str, Circuit], dict[str, str]]:
        """Circuits saved in the store, and traced ones, by name; and why some of the store cannot be read."""
        import numpy as np

        from apps.explorer.server.security import checked_name
        from apps.explorer.session.circuit_views import read_document
        from circuits.dataset.scan_targets import as_scanned
        from circuits.errors import CircuitsError
        from circuits.tracing.trace import trace
        from zoo.common.reading import read_json

        circuits, unreadable = {}, {}
        for path in sorted((scan.folder / "circuits").glob("*.json")):
            try:
                checked_name(path.stem)
                circuit, _ = read_document(read_json(path))
                for node in circuit.nodes:
                    model.unit(node.unit)
            except (CircuitsError, OSError, ValueError) as error:
                unreadable[path.stem] = str(error)
            else:
                circuits[path.stem] = circuit
        opened = scan.images(images, check=False) if self.circuits else None
        for address in self.circuits:
            unit = model.unit(address if "/" in address else f"{model.name}/{address}").channel
            unit = as_scanned(model, unit, scan.layers)
            top = [e.image for e in scan.unit(unit).top[:64]] if unit.space in scan.layers else []
            if not top:
                raise UsageError(f"--circuits {address}: no scanned image activates it, so there is nothing to trace")
            assert opened is not None
            order = np.random.default_rng(self.seed).permutation(len(opened)).tolist()
            others = [image for image in order if image not in top][: _TRACED_ON - len(top)]
            subset = opened.subset(sorted({*top, *others}))
            with session.progress(f"tracing {unit.short}") as report:
                circuits[unit.short.replace(":", "-")] = trace(model, unit, images=subset, **reporting(report))
        return circuits, unreadable

    def _visualize(self, session: Session, model: Model, scan: Scan, layers: list[str]) -> None:
        from apps.explorer.resources.rendered_units import FOLDER
        from circuits.visualization.sweeps.sweep import sweep

        there = _visualizations(scan, model)
        for layer in layers:
            folder, active = scan.folder / FOLDER / f"{layer}.published", scan.layer(layer).active_images
            units = [f"{model.name}/{layer}:{i}" for i in active.nonzero()[0].tolist()]
            # those of the layer's own sweep are named again, so that it is resumed as it was begun
            missing = [u for u in units if all(path.parent == folder for path in there.get(u, ()))]
            if missing:
                with session.progress(f"visualizing {layer}, step") as report:
                    sweep(model, missing, folder, **reporting(report))


def _visualizations(scan: Scan, model: Model) -> dict[str, list[Path]]:
    """Image files of the store by unit: those that activate it."""
    from apps.explorer.resources.rendered_units import read_visualizations, sweeps

    files = {
        unit: [r.png for r in results if r.kind != "negative" and r.result.status == "ok" and r.png.is_file()]
        for unit, results in read_visualizations(sweeps(scan.folder), model.digest).items()
    }
    return {unit: paths for unit, paths in files.items() if paths}


def _polysemanticity(scan: Scan, model: Model) -> dict[str, float]:
    """Scores of the units of the layers that `circuits scan --polysemantic` has clustered."""
    from apps.explorer.resources.layer_polysemanticity import stored

    clustered = (stored(model, scan, layer) or {} for layer in scan.layers)
    return {unit: row.score for rows in clustered for unit, row in rows.items()}
