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
from apps.cli.common import Many, ModelOptions, Result, Session, open_pictures, reporting
from apps.cli.console import clock, signed, table
from apps.cli.errors import UsageError

if TYPE_CHECKING:
    from circuits.explain import Dossier


@dataclass(frozen=True, kw_only=True)
class Explain(ModelOptions):
    """Gather all that is known of one unit, on one page: what it answers to from strong to weak, its histogram, what
    it reads and who reads it, and which units are like it.

    It stands on a scan (`circuits scan`). Sections that take longer are made when they are asked for. With --out the
    page is written as index.html; without, what matters most is printed.

    Example:
        circuits scan scenes --images scenes:500
        circuits explain scenes/mixed4a:11 --out car
        circuits explain scenes/mixed4a:11 --sections visualization --out car
    """

    address: tyro.conf.Positional[str]
    """The unit: model/layer:unit."""
    store: Path = STORE
    """Folder that the scan was kept in."""
    sections: Many = ()
    """A section to make besides the quick ones; may be repeated; `all` for all there are."""
    images: Many = ()
    """The scanned pictures, where they are not where they were; may be repeated."""

    def run(self, session: Session) -> Result:
        """The dossier."""
        import sae.dossier  # noqa: F401 (adds what there is to say of latents)
        import sae.steering_section  # noqa: F401 (likewise)
        from circuits.address import Unit
        from circuits.explain import SECTIONS, explain
        from circuits.scans import read_scan

        elapsed = clock()
        asked = Unit.parse(self.address)
        if asked.model is None:
            raise UsageError(f"{self.address!r} does not say which model: write scenes/{self.address}, for example")
        scan = read_scan(self.store, asked.model)  # before the weights are read: it may not be there
        model, unit = self.address_of(self.address)
        unit = model.unit(unit)
        sections = list(SECTIONS) if "all" in self.sections else list(self.sections)
        images = open_pictures(self.images, None, self.seed) if self.images else None
        with session.progress(f"explaining {unit.short}") as report:
            found = explain(model, unit, scan, sections=sections, images=images, seed=self.seed, **reporting(report))
        document: dict[str, Any] = {**found.describe(), "store": str(self.store)}

        def show(console: Console) -> None:
            _show(console, found)
            console.print(Text(f"{elapsed():.1f} s; --out DIR writes the page with its pictures", style="dim"))

        def write(folder: Path) -> None:
            from circuits.plot.dossier import dossier_page

            python = (
                "import circuits\nfrom circuits.explain import explain\n\n"
                f"model = circuits.load({model.name!r})\n"
                f"scan = circuits.read_scan({str(self.store)!r}, model.name)\n"
                f"dossier = explain(model, {unit.short!r}, scan, sections={sections!r})"
            )
            page = dossier_page(found, scan, command=shlex.join(_words(session)), python=python, images=images)
            (folder / "index.html").write_text(page, encoding="utf-8")

        return Result(document, show, write)


def _words(session: Session) -> list[str]:
    return shlex.split(session.invocation)


def _show(console: Console, dossier: Dossier) -> None:
    from circuits.explain import Wires
    from circuits.scans import UnitScan

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
