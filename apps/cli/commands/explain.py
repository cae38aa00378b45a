"""`circuits explain`: the dossier of one unit."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.commands.scan import STORE
from apps.cli.common import CommandResult, Many, ModelOptions, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, signed, table
from apps.cli.registry import command
from apps.pictures import open_pictures

if TYPE_CHECKING:
    from circuits.dataset.scan_results import Scan
    from circuits.network.address import Unit
    from circuits.network.model import Model
    from circuits.units.dossier import Dossier
    from zoo.images.sources import Images


@command(group="Analysis", order=80, summary="the dossier of one unit, from a scan")
@dataclass(frozen=True, kw_only=True)
class Explain(ModelOptions):
    """Gather all that is known of one unit, on one page: what it answers to from strong to weak, its histogram, what
    it reads and who reads it, and which units are like it.

    It stands on a scan (`circuits scan`). Where the store holds none of the model yet, the pictures given with --images
    are scanned first, and the scan is kept. Sections that take longer are made when they are asked for. With --out the
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
    """Pictures to scan, where the store holds no scan of the model; where it does, the scanned pictures, should they
    not be where they were. May be repeated."""

    def run(self, session: Session) -> CommandResult:
        """The dossier."""
        import sae.steering.dossier_section  # noqa: F401 (likewise)
        import sae.superposition.dossier_section  # noqa: F401 (adds what there is to say of latents)
        from circuits.dataset.scan_results import read_scan
        from circuits.dataset.scan_store import folder_of, read_manifest
        from circuits.network.address import Unit
        from circuits.units.dossier import SECTIONS, explain
        from circuits.units.dossier.section_registry import section

        elapsed = clock()
        asked = Unit.parse(self.address)
        if asked.model is None:
            raise UsageError(f"{self.address!r} does not say which model: write scenes/{self.address}, for example")
        images = open_pictures(self.images, None, self.seed) if self.images else None
        sections = list(SECTIONS) if "all" in self.sections else [section(name).name for name in self.sections]
        fresh = images is not None and read_manifest(folder_of(self.store, asked.model)) is None
        scan = None if fresh else read_scan(self.store, asked.model)  # before the weights are read: it may not be there
        model, unit = self.address_of(self.address)
        unit = model.unit(unit)
        if scan is None:
            scan = self._scanned(session, model, unit, images)
        with session.progress(f"explaining {unit.short}") as report:
            found = explain(model, unit, scan, sections=sections, images=images, seed=self.seed, **reporting(report))
        document: dict[str, Any] = {**found.describe(), "store": str(self.store)}

        def show(console: Console) -> None:
            _show(console, found)
            console.print(Text(f"{elapsed():.1f} s; --out DIR writes the page with its pictures", style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot.units.dossier import dossier_page

            python = (
                "import circuits\nfrom circuits.units.dossier import explain\n\n"
                f"model = circuits.load({model.name!r})\n"
                f"scan = circuits.read_scan({str(self.store)!r}, model.name)\n"
                f"dossier = explain(model, {unit.short!r}, scan, sections={sections!r})"
            )
            page = dossier_page(found, scan, command=shlex.join(_words(session)), python=python, images=images)
            (folder / "index.html").write_text(page, encoding="utf-8")

        return CommandResult(document, show, write)

    def _scanned(self, session: Session, model: Model, unit: Unit, images: Images | None) -> Scan:
        """A scan of all layers that units are drawn from, and of the dictionary that the unit is of."""
        from circuits.dataset.scan import scan
        from circuits.dataset.scan_targets import sites_of

        if unit.index is None:
            raise UsageError(f"{self.address} is a layer: name one unit, {self.address}:0 for example")
        layers = [site.name for site in sites_of(model, None)]
        if unit.space not in layers:
            layers.append(unit.space)
        with session.progress(f"scanning {model.name}") as report:
            return scan(model, images, self.store, layers=layers, seed=self.seed, **reporting(report))


def _words(session: Session) -> list[str]:
    return shlex.split(session.invocation)


def _show(console: Console, dossier: Dossier) -> None:
    from circuits.dataset.scan_results import UnitScan
    from circuits.units.dossier import Wires

    found = dossier.parts["responses"]
    assert isinstance(found, UnitScan)
    console.print(Text(dossier.unit, style="bold"))
    fires = f"fires at {100 * found.density:.3g} % of positions, on {found.fires_on} of {found.images} pictures"
    console.print(f"{fires}; strongest {found.maximum:.4g}, mean where it fires {found.mean_if_on:.4g}")
    if found.top:
        rows = [[e.id, f"{e.value:.4g}", "{},{}".format(*e.position)] for e in found.top[:10]]
        console.print(table(["answers most to", "response", "at"], rows, right=" rr"))
    for name, title in (("inputs", "reads"), ("outputs", "read by")):
        part = dossier.parts[name]
        if isinstance(part, Wires):
            wired: list[list[object]] = [[w.unit, signed(w.weight), f"{100 * w.share:.1f} %"] for w in part.rows[:6]]
            console.print(table([title, "weight", "share"], wired, right=" rr"))
    if dossier.left:
        console.print(Text(f"more: --sections {', '.join(dossier.left)}", style="dim"))
