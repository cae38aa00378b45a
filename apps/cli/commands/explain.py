"""`circuits explain`: the dossier of one unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.scan import STORE
from apps.cli.common import CommandResult, Many, ModelOptions, Session, check_known, loading_code, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, signed, table
from apps.cli.registry import command
from apps.images import open_sources

if TYPE_CHECKING:
    from circuits.dataset.scan_results import Scan
    from circuits.network.address import Unit
    from circuits.network.model import Model
    from circuits.units.dossier import Dossier
    from zoo.images.sources import Images


@command(group="Analysis", order=80, summary="the dossier of one unit, from a scan")
@dataclass(frozen=True, kw_only=True)
class Explain(ModelOptions):
    """Compile the dossier of one unit on one page: examples from strong to weak activation, activation histogram,
    incoming and outgoing weights, and similar units.

    It stands on a scan (`circuits scan`). Where the store holds none of the model yet, the images given with --images
    are scanned first, and the scan is kept. Slow sections are computed on request (--sections). With --out the
    page is written as index.html; without, what matters most is printed.

    Example:
        circuits explain scenes/mixed4a:11 --images scenes:500 --sections all --out car
        circuits explain scenes/mixed3b~parts:37 --sae parts --images scenes:500 --store parts/scan --out wheel
        circuits explain scenes/mixed4a:11 --sections visualization --out car
    """

    address: tyro.conf.Positional[str]
    """The unit: model/layer:unit."""
    store: Path = STORE
    """Folder that the scan was kept in."""
    sections: Many = ()
    """A section to make besides the quick ones; may be repeated; `all` for all there are."""
    images: Many = ()
    """Images to scan, where the store holds no scan of the model; where it does, the scanned images, if they
    have been moved. May be repeated."""

    files: ClassVar[tuple[str, ...]] = ("index.html",)

    def run(self, session: Session) -> CommandResult:
        """The dossier."""
        import sae.steering.dossier_section  # noqa: F401 (likewise)
        import sae.superposition.dossier_section  # noqa: F401 (adds what there is to say of latents)
        from circuits.dataset.scan_results import read_scan
        from circuits.dataset.scan_store import folder_of, read_manifest
        from circuits.dataset.scan_targets import as_scanned
        from circuits.network.address import Unit, split_class
        from circuits.units.dossier import SECTIONS, explain

        elapsed = clock()
        address = Unit.parse(split_class(self.address)[0])
        if address.model is None:
            raise UsageError(f"{self.address!r} does not name its model: write scenes/{self.address}, for example")
        images = open_sources(self.images, None, self.seed) if self.images else None
        sections = list(SECTIONS) if "all" in self.sections else [SECTIONS[name].name for name in self.sections]
        check_known(address.model, self.store)
        fresh = images is not None and read_manifest(folder_of(self.store, address.model)) is None
        scan = (
            None if fresh else read_scan(self.store, address.model)
        )  # before the weights are read: it may not be there
        model, unit = self.address_of(self.address)
        unit = model.unit(unit)
        if scan is None:
            scan = self._scanned(session, model, unit, images)
        unit = as_scanned(model, unit, scan.layers)
        with session.progress(f"explaining {unit.short}") as report:
            dossier = explain(model, unit, scan, sections=sections, images=images, seed=self.seed, **reporting(report))
        document: dict[str, Any] = {**dossier.describe(), "store": str(self.store)}

        def show(console: Console) -> None:
            _show(console, dossier)
            end = "; --out DIR writes the page with its images" if self.out is None else ""
            console.print(Text(f"{elapsed():.1f} s{end}", style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot.units.dossier import dossier_page

            python = (
                "import circuits\nfrom circuits.units.dossier import explain\n\n"
                f"{loading_code(model.name, self.weights)}\n"
                f"scan = circuits.read_scan({str(self.store)!r}, model.name)\n"
                f"dossier = explain(model, {unit.short!r}, scan, sections={sections!r})"
            )
            page = dossier_page(dossier, scan, command=session.invocation, python=python, images=images)
            (folder / "index.html").write_text(page, encoding="utf-8")

        return CommandResult(document, show, write)

    def _scanned(self, session: Session, model: Model, unit: Unit, images: Images | None) -> Scan:
        """A scan of the layers that have units, and of the unit's own dictionary."""
        from circuits.dataset.scan import scan
        from circuits.dataset.scan_targets import sites_of

        if unit.index is None:
            raise UsageError(f"{self.address} is a layer: name one unit, {self.address}:0 for example")
        layers = [site.name for site in sites_of(model, None)]
        if unit.space not in layers:
            layers.append(unit.space)
        with session.progress(f"scanning {model.name}") as report:
            return scan(model, images, self.store, layers=layers, seed=self.seed, **reporting(report))


def _show(console: Console, dossier: Dossier) -> None:
    from circuits.dataset.scan_results import UnitScan
    from circuits.units.dossier import NeighborWeights

    responses = dossier.parts["responses"]
    assert isinstance(responses, UnitScan)
    console.print(Text(dossier.unit, style="bold"))
    active = (
        f"active at {100 * responses.density:.3g} % of positions, "
        f"on {responses.active_images} of {responses.images} images"
    )
    mean = f", mean where active {responses.mean_if_on:.4g}" if responses.active_images else ""
    console.print(f"{active}; strongest {responses.maximum:.4g}{mean}")
    if responses.top:
        rows = [[e.id, f"{e.value:.4g}", "{},{}".format(*e.position)] for e in responses.top[:10]]
        console.print(table(["top activating images", "response", "at"], rows, right=" rr"))
    for name, title in (("inputs", "incoming weights"), ("outputs", "outgoing weights")):
        part = dossier.parts[name]
        if isinstance(part, NeighborWeights):
            wired: list[list[object]] = [[w.unit, signed(w.weight), f"{100 * w.share:.1f} %"] for w in part.rows[:6]]
            console.print(table([title, "weight", "share"], wired, right=" rr"))
    if dossier.omitted:
        console.print(Text(f"more: --sections {', '.join(dossier.omitted)}", style="dim"))
