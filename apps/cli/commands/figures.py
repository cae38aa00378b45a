"""`circuits figures`: the papers' figures, regenerated."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, Many, ModelChoice, Session, in_environment
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.cli.output.folder import Outputs
from apps.cli.registry import command
from apps.images import open_sources

if TYPE_CHECKING:
    from apps.figures.figure import Figure
    from apps.figures.runner import FigureOutcome

_STYLES = {"made": "green", "kept": "dim", "missing": "yellow", "failed": "bold red"}


@command(group="Analysis", order=170, summary="the papers' figures, regenerated on any model, with their numbers")
@dataclass(frozen=True, kw_only=True)
class Figures(ModelChoice):
    """Make the figures of the papers again, on any model.

    `list` says which there are, `show ID` what one is about, `make ID...` makes them: images as PNG and SVG, the
    numbers in them as JSON, and a gallery (index.html). An id (Z11), a name (car-circuit), a paper (zoom-in) or `all`
    says which. What a paper shows of one unit is shown of the unit that was found to correspond to it; the caption says
    how it was found. A run that was stopped goes on where it was, and what is there and still right is kept.

    Example:
        circuits figures list
        circuits figures show Z11
        circuits figures make Z11 --out figures
        circuits figures make all --quick --out first-look
        circuits figures make zoom-in --model googlenet-bvlc --images photos --out googlenet
    """

    action: tyro.conf.Positional[Literal["list", "show", "make"]]
    """What to do."""
    which: tyro.conf.Positional[tuple[str, ...]] = ()
    """Ids, names or papers of `circuits figures list`, or all."""
    model: str = "scenes"
    """Name of a model, as `circuits models` lists them, or one of your own: mine.py:make, NAME=mine.py:make."""
    images: Many = ()
    """Images: a folder, a manifest, scenes:500; may be repeated. By default scenes:500 for the model `scenes`."""
    limit: int | None = None
    """At most so many images, drawn at random with --seed."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Fewer images and steps: a first look."""
    jobs: int | None = None
    """Figures made at once; by default one for each core, up to four."""
    again: tyro.conf.FlagCreatePairsOff[bool] = False
    """Make also what is there."""

    fills_out: ClassVar[bool] = True

    def outputs(self) -> Outputs:
        """The gallery, and the drawings and numbers of the figures asked for."""
        from apps.figures.registry import select
        from apps.figures.runner import DOCUMENT, FORMATS, OF, read_document

        if self.action != "make" or self.out is None:
            return super().outputs()
        figures = select(self.which)
        patterns = [f"{figure.id}/{name}" for figure in figures for name in (DOCUMENT, *(f"*.{k}" for k in FORMATS))]
        finished = [(f.id, document) for f in figures if (document := read_document(self.out / f.id)) is not None]
        files = [
            f"{id}/{Path(name).stem}.{k}" for id, document in finished for name in document["pictures"] for k in FORMATS
        ]
        known = frozenset([*files, *(f"{id}/{DOCUMENT}" for id, _ in finished)])
        return Outputs(("index.html", OF, *patterns), known, self.overwrite)

    def run(self, session: Session) -> CommandResult:
        """The figures there are, or what was made."""
        from apps.figures.registry import select

        if self.action == "list":
            return _list(select(self.which))
        if not self.which:
            raise UsageError(
                f"figures {self.action} needs to know which: an id, a name or a paper of `circuits figures list`"
            )
        figures = select(self.which)
        return _describe(figures) if self.action == "show" else self._regenerated(figures, session)

    def _regenerated(self, chosen: list[Figure], session: Session) -> CommandResult:
        from apps.figures.context import Settings
        from apps.figures.gallery import write_gallery
        from apps.figures.registry import figures
        from apps.figures.runner import make

        if self.out is None:
            raise UsageError("figures make writes images: give --out FOLDER")
        self.check_least("jobs", "limit")
        model, environment = self.name_and_environment(self.model, None)
        settings = Settings(
            model=model,
            weights=self.weights,
            images=tuple(self.images),
            limit=self.limit,
            effort="quick" if self.quick else "full",
            seed=self.seed,
            device=self.device,
        )
        self._check(settings)
        jobs = self.jobs or min(4, os.cpu_count() or 1)
        finished: list[FigureOutcome] = []
        with in_environment(environment), session.progress(f"figures on {model}") as report:

            def on_done(outcome: FigureOutcome) -> None:
                finished.append(outcome)
                if report is not None:
                    report(len(finished), len(chosen))

            outcomes = make(
                chosen, settings, self.out, command=self._command(), jobs=jobs, again=self.again, on_done=on_done
            )
        index = write_gallery(self.out, figures(), outcomes, f"Figures on {model}")
        counts = {status: sum(m.status == status for m in outcomes) for status in _STYLES}
        titles = {figure.id: figure.title for figure in chosen}
        document: dict[str, Any] = {
            "gallery": str(index),
            "counts": counts,
            "figures": [{**vars(m), "claims_failed": list(m.claims_failed), "title": titles[m.id]} for m in outcomes],
        }

        def show(console: Console) -> None:
            rows = [[m.id, titles[m.id], Text(m.status, style=_STYLES[m.status]), _status(m)] for m in outcomes]
            console.print(table(["figure", "what", "", ""], rows))
            console.print(Text(", ".join(f"{n} {status}" for status, n in counts.items() if n) + f": {index}"))

        return CommandResult(document, show, code=1 if counts["failed"] else 0)

    def _check(self, settings: Any) -> None:
        """Know of a wrong model or folder before the work."""
        from circuits.network.model import load

        load(settings.model, weights=settings.weights, device=settings.device)
        if settings.images:
            open_sources(settings.images, settings.limit, settings.seed)

    def _command(self) -> str:
        """The options with which a figure is made again, but for its id and the folder."""
        arguments = ["--model", self.model]
        for option, value in (
            ("--weights", self.weights),
            ("--input", self.input),
            ("--card", self.card),
            ("--output", self.output),
            ("--limit", self.limit),
            ("--seed", self.seed or None),
        ):
            arguments += [option, str(value)] if value is not None else []
        for image in self.images:
            arguments += ["--images", image]
        arguments += ["--quick"] if self.quick else []
        return shlex.join(arguments)


def _status(outcome: FigureOutcome) -> str:
    if outcome.claims_failed:
        return "does not hold here: " + "; ".join(outcome.claims_failed)
    return outcome.why or (f"{outcome.seconds:.1f} s" if outcome.status == "made" else "")


def _list(figures: list[Figure]) -> CommandResult:
    from apps.figures.papers import PAPERS

    rows = [
        {"id": f.id, "also": list(f.also), "name": f.name, "title": f.title, "paper": f.paper, "fits": f.fits}
        for f in figures
    ]

    def show(console: Console) -> None:
        for key, paper in PAPERS.items():
            of = [f for f in figures if f.paper == key]
            if not of:
                continue
            console.print(Text.assemble((paper.title, "bold"), f"  {paper.authors}, {paper.year}  ", (key, "dim")))
            console.print(table(["id", "name", "what"], [[", ".join((f.id, *f.also)), f.name, f.title] for f in of]))
            console.print()

    return CommandResult({"figures": rows}, show)


def _describe(figures: list[Figure]) -> CommandResult:
    from apps.figures.papers import PAPERS

    rows = [
        {
            "id": f.id,
            "also": list(f.also),
            "name": f.name,
            "title": f.title,
            "paper": PAPERS[f.paper].describe(),
            "shows": f.shows,
            "fits": f.fits,
            "cpu_seconds_on_googlenet": f.cost,
            "has_published_numbers": f.published is not None,
            "script": f.module,
            "make": f"circuits figures make {f.id} --out figures",
        }
        for f in figures
    ]

    def show(console: Console) -> None:
        for figure, row in zip(figures, rows, strict=True):
            console.print(Text.assemble((f"{', '.join((figure.id, *figure.also))}  {figure.title}", "bold")))
            console.print(Text(f"{PAPERS[figure.paper].title}, {PAPERS[figure.paper].url}", style="dim"))
            console.print(Text(figure.shows))
            console.print(
                Text(f"fits: {figure.fits}; about {figure.cost} CPU-seconds on GoogLeNet; script: {figure.module}")
            )
            console.print(Text(str(row["make"])))
            console.print()

    return CommandResult({"figures": rows}, show)
