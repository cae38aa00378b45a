"""Pages show any label, id and name as text, whatever it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from markupsafe import Markup

import circuits
from circuits import plot
from circuits.activations.atlas import Atlas, Cell
from circuits.common.examples import Example
from circuits.plot.drawing.html_page import printable, table, tag
from circuits.units.dossier import explain
from tests.circuits.plot.pages import HOSTILE, check_safe
from zoo.images.decoding import TensorImage
from zoo.images.sources import Images

ID = '"><img src=x onerror=alert(1)>\udce9'


@pytest.fixture(scope="module")
def images() -> Images:
    pixels = torch.rand(6, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    items = [TensorImage(f"{ID[:-1]}\u202e{i}", values) for i, values in enumerate(pixels)]
    return Images(items, HOSTILE, labels=[0] * 6, classes=[HOSTILE])


@pytest.fixture(scope="module")
def model() -> circuits.Model:
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU(), torch.nn.Conv2d(4, 2, 3)).eval()
    return circuits.wrap(net, circuits.InputSpec(size=12), name="net")


def test_names_on_a_dossier_are_text(model: circuits.Model, images: Images, tmp_path: Path) -> None:
    scan = circuits.scan(model, images, tmp_path)
    layer = next(iter(scan.layers))
    dossier = replace(explain(model, f"{layer}:0", scan), provenance={HOSTILE: {"a": HOSTILE}})
    page = check_safe(plot.dossier_page(dossier, scan, command=HOSTILE, python=HOSTILE, images=images))
    assert page.images_without_alt == 0
    latents = plot.latents_page(
        scan, layer, [0, 1], links={dossier.unit: HOSTILE}, command=HOSTILE, python=HOSTILE, images=images
    )
    check_safe(latents.replace('href="&lt;', 'href="#&lt;'))


def test_names_on_a_page_of_text_latents_are_text() -> None:
    passage = SimpleNamespace(words=(HOSTILE, "\u202e b", "c"), values=(1.0, 2.0, 0.0), at=1, value=2.0)
    feature = SimpleNamespace(
        unit=HOSTILE, tokens=3, density=0.1, maximum=2.0, mean=1.5, counts=(2, 0, 1), top=(passage,),
        bands=(SimpleNamespace(low=0.0, high=1.0, passages=(passage,)),), promoted=((HOSTILE, 1.0),),
        suppressed=(("\x00", -1.0),), shares_with=({"unit": HOSTILE, "cosine": 0.5, "beyond_chance": True},),
    )  # fmt: skip
    text = plot.texts_page(
        [feature], title=HOSTILE, facts=[(HOSTILE, HOSTILE)], provenance={HOSTILE: HOSTILE}, command="c", python="p"
    )
    check_safe(text)
    assert "b</mark>c</span>" in text  # tokens follow each other as they do in the passage


def test_names_on_an_atlas_are_text() -> None:
    cell = Cell(0, 0, 2, (Example(0, ID, (0, 0), 1.0, (0, 0, 4, 4)),), ((HOSTILE, 1.0),), ((HOSTILE, 1.0),))
    atlas = Atlas(
        HOSTILE, HOSTILE, 1, np.zeros((2, 2), np.float32), np.zeros(2, np.int64), np.zeros((2, 2), np.int64),
        np.zeros(2, np.int64), (cell, replace(cell, row=1)), torch.zeros(2, 3), torch.zeros(2, 3),
        torch.zeros(2, 3, 8, 8), ("ok", HOSTILE), (), {"size": 8, "steps": 1}, {HOSTILE: HOSTILE},
    )  # fmt: skip
    check_safe(plot.atlas_page(atlas, command=HOSTILE, python=HOSTILE))


def test_elements_escape_what_is_no_markup() -> None:
    assert tag("p", "a\x00 < ", tag("b", "c"), title='"', class_="x", width=1.50) == Markup(
        '<p title="&#34;" class="x" width="1.5">a &lt; <b>c</b></p>'
    )
    assert printable("a\u202eb\n\tc") == "ab\n\tc"
    assert "&lt;b&gt;" in table(["h"], [["<b>"]])
