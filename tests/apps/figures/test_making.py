"""Figures of a folder: complete or absent, up to date, and of one model."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from matplotlib.figure import Figure as Drawing

from apps.cli.verify.checks import Check
from apps.figures import scripts
from apps.figures.context import FigureContext, NotApplicable, Settings
from apps.figures.figure import FIGURES, Claim, Figure, FigureResult, figure
from apps.figures.gallery import write_gallery
from apps.figures.papers import PAPERS, load_scripts
from apps.figures.registry import figures, select
from apps.figures.runner import FigureOutcome, make, read_document
from zoo.errors import CircuitsError, FileError

TOY = Settings(effort="test")


def of(draw: Callable[[FigureContext], FigureResult], id: str = "X1", **more: object) -> Figure:
    return Figure(id, id.lower() + "-name", "A title", "zoom-in", "It shows.", "toy", draw, module=__name__, **more)  # type: ignore[arg-type]


def a_line(context: FigureContext) -> FigureResult:
    drawing = Drawing(figsize=(1, 1))
    drawing.add_subplot().plot([0, 1], [context.seed, 1])
    claim = Claim("more than chance", 2.0, 1.0, True, "chance")
    return FigureResult({"": drawing}, {"line": [0.1, float("nan")]}, "A line.", [claim])


def unlucky(context: FigureContext) -> FigureResult:
    raise ZeroDivisionError("no luck")


def lacking(context: FigureContext) -> FigureResult:
    raise NotApplicable("needs wings")


def test_a_figure_is_two_image_files_and_its_numbers(tmp_path: Path) -> None:
    (outcome,) = make([of(a_line)], TOY, tmp_path, command="--quick")
    assert outcome.status == "made" and not outcome.claims_failed
    assert {p.name for p in (tmp_path / "X1").iterdir()} == {"x1-name.png", "x1-name.svg", "figure.json"}
    document = json.loads((tmp_path / "X1" / "figure.json").read_text("utf-8"))
    assert document["numbers"] == {"line": [0.1, None]} and document["caption"] == "A line. Seed 0."
    assert document["claims"][0]["value"] == 2.0 and document["provenance"]["effort"] == "test"


def test_a_figure_stays_until_something_that_it_depends_on_changes(tmp_path: Path) -> None:
    calls = []

    def counted(context: FigureContext) -> FigureResult:
        calls.append(context.seed)
        return a_line(context)

    script = of(counted)
    statuses = [make([script], TOY, tmp_path)[0].status for _ in range(2)]
    assert statuses == ["made", "kept"] and calls == [0]
    other = Settings(effort="test", seed=1)
    with pytest.raises(CircuitsError, match="holds X1 made with seed=0, not 1: give another --out, or --again"):
        make([script], other, tmp_path)
    assert calls == [0] and read_document(tmp_path / "X1")["settings"]["seed"] == 0  # type: ignore[index]
    assert make([script], other, tmp_path, again=True)[0].status == "made" and calls == [0, 1]
    (tmp_path / "X1" / "x1-name.svg").unlink()
    assert read_document(tmp_path / "X1") is not None, "the picture that the gallery shows is there"
    (tmp_path / "X1" / "x1-name.png").unlink()
    assert make([script], Settings(effort="test", seed=1), tmp_path)[0].status == "made"
    (tmp_path / "X1" / "figure.json").write_text("{")
    assert make([script], Settings(effort="test", seed=1), tmp_path)[0].status == "made"


def test_an_error_in_one_script_stops_no_other(tmp_path: Path) -> None:
    three = [of(unlucky, "X1"), of(a_line, "X2"), of(lacking, "X3")]
    outcomes = make(three, TOY, tmp_path)
    assert [m.status for m in outcomes] == ["failed", "made", "missing"]
    assert outcomes[0].why.startswith("ZeroDivisionError: no luck (test_making.py, line ")
    assert outcomes[2].why == "needs wings" and not (tmp_path / "X1").exists()


def test_an_older_figure_does_not_stand_in_for_one_that_failed(tmp_path: Path) -> None:
    make([of(a_line)], TOY, tmp_path)
    assert make([of(unlucky)], TOY, tmp_path, again=True)[0].status == "failed"
    assert read_document(tmp_path / "X1") is None


def test_a_full_disk_leaves_the_finished_figure_and_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make([of(a_line)], TOY, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "X1").iterdir()}

    def full(*_: object) -> None:
        raise FileError("cannot write: No space left on device")

    monkeypatch.setattr("circuits.plot.save_figure", full)
    (outcome,) = make([of(a_line)], TOY, tmp_path, again=True)
    assert outcome.status == "failed" and "No space left" in outcome.why
    assert {p.name: p.read_bytes() for p in (tmp_path / "X1").iterdir()} == before
    assert not list(tmp_path.glob(".circuits-*"))


def test_no_room_for_the_staging_folder_leaves_the_finished_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make([of(a_line)], TOY, tmp_path)
    before = {p.name: p.read_bytes() for p in (tmp_path / "X1").iterdir()}

    def full(*_: object, **__: object) -> str:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zoo.common.files.tempfile.mkdtemp", full)
    (outcome,) = make([of(a_line)], TOY, tmp_path, again=True)
    assert outcome.status == "failed" and "No space left" in outcome.why
    assert {p.name: p.read_bytes() for p in (tmp_path / "X1").iterdir()} == before


def test_what_the_user_added_to_a_figure_stays(tmp_path: Path) -> None:
    make([of(a_line)], TOY, tmp_path)
    (tmp_path / "X1" / "notes.txt").write_text("mine")
    make([of(a_line)], TOY, tmp_path, again=True)
    (outcome,) = make([of(lacking)], TOY, tmp_path, again=True)
    assert outcome.status == "missing"
    assert [p.name for p in (tmp_path / "X1").iterdir()] == ["notes.txt"]


def test_figures_of_a_stopped_run_stay(tmp_path: Path) -> None:
    def stopped(context: FigureContext) -> FigureResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make([of(a_line, "X1", cost=9), of(stopped, "X2", cost=1)], TOY, tmp_path)
    assert make([of(a_line, "X1"), of(a_line, "X2")], TOY, tmp_path)[0].status == "kept"


def test_a_folder_is_of_one_model(tmp_path: Path) -> None:
    make([of(a_line)], TOY, tmp_path)
    with pytest.raises(CircuitsError, match="holds figures of scenes: give another --out for squeezenet-1.1"):
        make([of(a_line)], Settings(model="squeezenet-1.1"), tmp_path)
    assert read_document(tmp_path / "X1") is not None


def test_the_gallery_has_the_figures_and_why_others_are_missing(tmp_path: Path) -> None:
    def claimed(context: FigureContext) -> FigureResult:
        line = a_line(context)
        bad = Claim("<b>bold</b>", 1.0, 2.0, False, "chance")
        return FigureResult(line.drawings, line.numbers, "A <script>.", [*line.claims, bad])

    figures_given = [of(claimed, "X1", published=lambda context: []), of(lacking, "X2"), of(a_line, "X3")]
    outcomes = make(figures_given[:2], TOY, tmp_path, command="--model scenes")
    text = write_gallery(tmp_path, figures_given, outcomes, "Figures").read_text("utf-8")
    assert "A &lt;script&gt;." in text and "&lt;b&gt;bold&lt;/b&gt;" in text and "does not hold here" in text
    assert "Not made: needs wings" in text and 'id="X3"' not in text
    assert "circuits figures make X1 --out figures --model scenes" in text
    assert "inception5h.pth" in text, "published numbers that could not be compared are named"
    assert 'src="X1/x1-name.png"' in text and "Zoom In" in text


def test_published_numbers_are_compared_on_their_network_only(tmp_path: Path) -> None:
    compared = []

    def published(context: FigureContext) -> Iterator[Check]:
        compared.append(context.settings.model)
        yield Check("a number", "1", "1", "pass")

    script = of(a_line, published=published)
    make([script], TOY, tmp_path / "scenes")
    make([script], Settings(model="inceptionv1", effort="test"), tmp_path / "theirs")
    assert compared == ["inceptionv1"]
    assert read_document(tmp_path / "scenes" / "X1")["published"] == []  # type: ignore[index]
    assert read_document(tmp_path / "theirs" / "X1")["published"][0]["verdict"] == "pass"  # type: ignore[index]


def test_figures_are_selected_by_id_name_or_paper() -> None:
    assert [f.id for f in select(["z11"])] == [f.id for f in select(["car-circuit"])] == ["Z11"]
    assert {f.paper for f in select(["zoom-in"])} == {"zoom-in"}
    assert len(select(["all"])) == len(figures())
    with pytest.raises(CircuitsError, match="no figure 'car-circiut'. Nearest: car-circuit"):
        select(["car-circiut"])


def test_two_figures_cannot_share_a_name() -> None:
    before = dict(FIGURES)
    with pytest.raises(CircuitsError, match="'car-circuit': it is a name of Z11"):
        figure("X9", "car-circuit", "", paper="zoom-in", shows="")(a_line)
    with pytest.raises(CircuitsError, match="no paper 'zoom-out'. Nearest: zoom-in"):
        figure("X9", "x9", "", paper="zoom-out", shows="")(a_line)
    assert dict(FIGURES) == before


def test_a_new_folder_with_one_script_is_a_new_paper_with_a_figure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "new_paper"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from apps.figures.papers import PAPERS, Paper\n"
        "PAPERS.add('new-paper', Paper('A New Paper', 'Somebody', 2027, 'https://example.org'))\n"
    )
    (folder / "first.py").write_text(
        "from apps.figures.figure import figure\n"
        "@figure('N1', 'first-figure', 'A title', paper='new-paper', shows='It shows.')\n"
        "def draw(context): ...\n"
    )
    monkeypatch.setattr(scripts, "__path__", [*scripts.__path__, str(tmp_path)])
    try:
        load_scripts()
        assert [f.id for f in select(["new-paper"])] == [f.id for f in select(["N1"])] == ["N1"]
        assert list(PAPERS)[-1] == "new-paper" and list(PAPERS)[0] == "zoom-in"
        assert set(PAPERS["new-paper"].describe()) == {"title", "authors", "year", "url"}
    finally:
        FIGURES.remove("N1")
        PAPERS.remove("new-paper")
        for name in [name for name in sys.modules if ".scripts.new_paper" in name]:
            del sys.modules[name]


def test_the_longest_are_begun_first_and_returned_in_the_given_order(tmp_path: Path) -> None:
    reported: list[FigureOutcome] = []
    outcomes = make([of(a_line, "X1", cost=1), of(a_line, "X2", cost=50)], TOY, tmp_path, on_done=reported.append)
    assert [m.id for m in reported] == ["X2", "X1"] and [m.id for m in outcomes] == ["X1", "X2"]
