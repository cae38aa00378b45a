"""Python code that gives the numbers of a unit's page, section by section."""

from __future__ import annotations

from apps.explorer.panes.unit import contributions, similar_units, tuning
from apps.explorer.resources import layer_polysemanticity
from apps.explorer.resources.renamed_scan import RenamedScan
from apps.explorer.session import state
from apps.explorer.session.state import Location
from circuits.dataset.scan_results import UnitScan


def script(at: Location, scanned: UnitScan | None, section: str) -> str:
    """Python code of a section; without a scan, code that loads the model."""
    unit = at.unit.channel.short
    code = f"import circuits\n\n{state.loading_code_of(at)}\n"
    if at.unit.basis is not None:
        # a scan beside an SAE names the latents after the SAE's folder
        own = at.scan.old if isinstance(at.scan, RenamedScan) else at.unit.space
        unit = f"{own}:{at.unit.index}"
        folder = str(dict(at.settings.saes).get(at.unit.basis))
        attached = f"attach_folder(model, {folder!r}, {own.partition('~')[2]!r})"
        code += f"\nfrom sae.data.vision_site import attach_folder\n\n{attached}\n"
    if at.scan is None or scanned is None:
        return code
    code += (
        f"scan = circuits.read_scan({str(at.scan.folder.parent)!r}, model.name)\n"
        f"unit = scan.unit({unit!r})\n"
        "print(unit.density, unit.maximum, unit.mean_if_on)\n"
    )
    if section == "contributions":
        image, position = contributions.position_of_address(at, scanned, len(state.images_of(at)))
        before = at.model.before(at.unit.layer)
        return code if before is None else code + (
            f"image = scan.images().subset([{image}])\n"
            f"attribution = circuits.attribute(\n    model, image, source={before!r}, target={unit!r}, "
            f'method="weight*act", at={position}\n)\n'
            f"print(attribution.top({contributions.SOURCES}), attribution.response[0])\n"
        )  # fmt: skip
    if section == "tuning":
        kind = tuning.chosen_kind()
        stimuli = f"circuits.stimuli.{tuning.KINDS[kind][1].__name__}()"
        return code + f"row = circuits.tune(model, {unit!r}, stimuli={stimuli}).rows()[0]\nprint(row.peak, row.at)\n"
    if section == "similar":
        return code + similar_units.script(at, unit)
    if section == "polysemanticity":
        return code + (
            f"examples = {{str(model.unit({unit!r})): unit.top[:{layer_polysemanticity.MOST}]}}\n"
            f"rows = circuits.polysemantic(model, {unit!r}, images=scan.images(), examples=examples).rows\n"
            "print(rows[0].score, rows[0].split, rows[0].clusters)\n"
        )
    if section == "labels":
        return code + (
            "\nfrom pathlib import Path\nfrom apps.explorer.session.labels import Labels\n\n"
            f"print(Labels(Path({str(at.settings.store)!r})).of({str(at.unit.channel)!r}))\n"
        )
    return code + (
        f'dossier = circuits.explain(model, {unit!r}, scan, sections=["inputs", "outputs"])\n'
        'print(dossier.parts["inputs"], dossier.parts["outputs"])\n'
    )
