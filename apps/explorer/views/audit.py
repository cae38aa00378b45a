"""A finished audit: what a classifier relies on that it should not, what its removal changes, and files of both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import streamlit as st

from apps.explorer import page_frame
from apps.explorer.components.choose import choose, pick
from apps.explorer.pages import Entry
from apps.explorer.panes.audit import suspects, without
from apps.explorer.resources.audit import audits
from apps.explorer.resources.audit.audits import OpenAudit
from apps.explorer.server.security import UploadError, guarded, plain
from apps.explorer.session import links, state
from apps.explorer.session.exports import Export
from apps.explorer.session.state import Location
from circuits.errors import CircuitsError, ImageError, shorten
from circuits.plot.audit.page import audit_figure, audit_page, bounds, lead

PAGE = Entry(
    "Audit", ":material/fact_check:", "what a classifier relies on that it should not: `circuits audit`", order=53
)
PANELS = {"suspect": "Suspect", "without": "Without them", "classes": "Classes", "bounds": "What it cannot say"}


def main() -> None:
    """The page."""
    at, top = page_frame.location(), st.container()
    folders, name, opened = audits.folders(at.settings, at.model.name), "", None
    units: Mapping[str, float] = {}
    with st.container(), guarded():  # the bar of opening the images; what follows keeps its place when it goes
        if folders:
            name = _chosen(folders)
            opened = _opened(at, name, folders[name])
    if opened is not None:
        with guarded():
            units = _show(at, opened)
    elif not folders:
        _none_yet(at)
    with top:
        page_frame.header(
            "audit", f"Audit of {at.model.name if opened is None else opened.audit.model}",
            about="what the network relies on that it should not, and what happens without it",
            view={"unit": str(at.unit)} | ({"audit": name} if name else {}),
            python="" if opened is None else without.script(at, opened, units),
            export=None if opened is None else _export(at, name, opened),
        )  # fmt: skip


def _chosen(folders: Mapping[str, Path]) -> str:
    """The audit of the address, or the first; with a choice where there are several."""
    requested = links.param("audit", 200)
    if requested is not None and requested not in folders:
        raise UploadError(
            f"there is no audit of that name here: {', '.join(shorten(n, 40) for n in list(folders)[:6])}"
        )
    return pick("Audit", {n: n for n in folders}, "audit", width=260) if len(folders) > 1 else next(iter(folders))


def _opened(at: Location, name: str, folder: Path) -> OpenAudit:
    """The audit, and its images where they are at hand; on the page of its model."""
    audit = audits.opened(folder)
    if audit.model != at.model.name:
        if audit.model not in state.models(at.settings):
            raise CircuitsError(
                f"the audit {shorten(name, 60)} is of {shorten(audit.model, 60)}, which is not open here: "
                "circuits explore --model MODEL --audit FOLDER"
            )
        links.go("audit", unit=state.default_unit_of(audit.model), audit=name)
    key = (str(folder), audits.stamp(folder), at.model.digest)
    images, missing = None, False
    try:
        images = page_frame.background_result(
            ("audited", *key), "opening the images of the audit",
            lambda _: audits.images_of(at.settings, at.model, folder),
        )  # fmt: skip
    except ImageError as error:
        missing = True
        st.info(plain(f"Without its images: {error}. With explore --images FOLDER they are looked for there."))
    return OpenAudit(folder, key, audit, images, missing)


def _show(at: Location, opened: OpenAudit) -> Mapping[str, float]:
    """The page below its choice; which units are removed, and how much of each."""
    audit = opened.audit
    st.markdown(f"**{plain(lead(audit))}**")
    masks = "" if audit.masks else "; the objects are not outlined"
    st.caption(plain(
        f"{audit.images}: {100 * audit.accuracy:.0f} % right, {100 * audit.chance:.0f} % by chance{masks}. "
        "Found on one half of the images, tried on the other."
    ))  # fmt: skip
    panel = choose("Panel", PANELS, "panel")
    selected = suspects.chosen(audit)
    units = without.removed(audit, selected)
    if panel == "without":
        if opened.missing:
            st.caption("Removal is measured on the audit's images, which are not at hand.")
        else:
            without.widgets(audit, units)
            result = without.measured(at, opened, units)
            if result is not None:
                without.show(result)
                without.show_network(at, opened, units)
    elif panel == "classes":
        suspects.show_classes(audit)
    elif panel == "bounds":
        st.markdown("\n".join(f"- {plain(line)}" for line in bounds(audit)))
    elif selected is None:
        st.caption("No unit is a suspect.")
    else:
        suspects.show_all(at, opened, selected)
        suspects.show(at, selected, opened)
    return units


def _none_yet(at: Location) -> None:
    st.caption(plain(f"There is no audit of {at.model.name} here yet. Make one; this page shows it:"))
    out = at.folder / audits.FOLDER / "first"
    st.code(at.command("audit", at.model.name, "--images", "FOLDER", "--out", out), language="sh", wrap_lines=True)


def _export(at: Location, name: str, opened: OpenAudit) -> Export:
    audit, images = opened.audit, None if opened.images is None else opened.images.inputs.images
    return Export(
        f"audit-{name}", lambda: audit_figure(audit), audit.describe, audit.records,
        lambda: audit_page(audit, images, at.model.input),
    )  # fmt: skip


main()
