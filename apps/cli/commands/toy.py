"""`circuits toy`: toy models of superposition, by name, and the figures of the paper."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Session, reporting
from apps.cli.errors import UsageError
from apps.cli.output.console import clock, table
from apps.cli.registry import command

if TYPE_CHECKING:
    from sae.superposition import Experiment, PhaseDiagram, Recovery, Solution, Trained, Vulnerability

_PANELS = 6
"""Models of a sweep that the graph of features shows."""


@command(group="Analysis", order=160, summary="toy models of superposition: train sweeps, print and plot them")
@dataclass(frozen=True, kw_only=True)
class Toy(Command):
    """Train toy models of superposition: sparse features squeezed through a few dimensions.

    `list` lists the experiments, `run NAME` trains one and prints the results, `figure NAME` also draws
    it into --out (by default the folder toy). `figure all` draws every one, in a few minutes. All models of an
    experiment, densities and seeds, are trained at once; of each setting the run with the least loss counts.

    Example:
        circuits toy list
        circuits toy run demonstration
        circuits toy figure planes --out toy
        circuits toy figure all --out toy --seed 1
    """

    action: tyro.conf.Positional[Literal["list", "run", "figure"]]
    """What to do."""
    name: tyro.conf.Positional[str | None] = None
    """An experiment of `circuits toy list`, or `all`."""
    seeds: int | None = None
    """Runs of each setting; by default the experiment's own number."""
    steps: int | None = None
    """Training steps; by default the experiment's own number."""

    files: ClassVar[tuple[str, ...]] = ("*.png",)

    def run(self, session: Session) -> CommandResult:
        """The experiments, or what training gave."""
        if self.action == "list":
            return self._list()
        self.check_least("seeds", "steps")
        if self.name is None:
            raise UsageError(f"toy {self.action} needs the name of an experiment: circuits toy list, or all")
        if self.action == "figure" and self.out is None:
            raise UsageError("toy figure writes images: give --out FOLDER")
        from sae.superposition import EXPERIMENTS, experiment

        chosen = list(EXPERIMENTS) if self.name == "all" else [experiment(self.name).name]
        elapsed = clock()
        got = self._together(chosen, session) if self._jobs(len(chosen)) > 1 else self._in_turn(chosen, session)
        trainings = [(EXPERIMENTS[name], got[name][0], got[name][1]) for name in chosen]
        seconds = elapsed()
        documents = {
            entry.name: {"what": entry.what, **_document(trained, attacked)} for entry, trained, attacked in trainings
        }
        document = {"experiments": documents}

        def show(console: Console) -> None:
            for entry, trained, attacked in trainings:
                console.print(Text(f"{entry.name}: {entry.what}", style="bold"))
                console.print(_table(trained, attacked))
                console.print()
            console.print(Text(f"{seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            for entry, trained, attacked in trainings:
                _draw(entry, trained, attacked, folder)

        return CommandResult(document, show, write if self.action == "figure" else None)

    def _list(self) -> CommandResult:
        from sae.superposition import EXPERIMENTS

        if self.name is not None:
            raise UsageError("toy list takes no name")
        rows: list[dict[str, Any]] = []
        for entry in EXPERIMENTS.values():
            rows.append({"name": entry.name, "what": entry.what, "models": entry.count, "figure": entry.figure})

        def show(console: Console) -> None:
            lines = [[Text(r["name"], style="bold"), r["models"], r["what"]] for r in rows]
            console.print(table(["experiment", "models", "what it shows"], lines, right=" r"))

        return CommandResult({"experiments": rows}, show)

    def _jobs(self, experiments: int) -> int:
        """Processes to train in: experiments are small, and two of them use two cores better than one does."""
        from circuits.network.model import best_device

        return min(os.cpu_count() or 1, 4, experiments) if best_device(self.device).type == "cpu" else 1

    @property
    def _options(self) -> _Options:
        return self.seeds, self.steps, self.seed, self.device

    def _in_turn(self, names: Sequence[str], session: Session) -> dict[str, _Result]:
        results: dict[str, _Result] = {}
        for group in _groups(names):
            with session.progress(f"training {' and '.join(group)}") as report:
                results.update(_train_several(group, self._options, **reporting(report)))
        return results

    def _together(self, names: Sequence[str], session: Session) -> dict[str, _Result]:
        from apps.processes import spread

        work = functools.partial(_train_several, options=self._options)
        groups = _groups(names)
        results: dict[str, _Result] = {}
        with session.progress("training toy models") as report:
            for _, some in spread(work, groups, min(self._jobs(len(names)), len(groups))):
                results.update(some)
                if report is not None:
                    report(len(results), len(names))
        return results


_Result = tuple["Trained | PhaseDiagram | Recovery", "Vulnerability | None"]
_Options = tuple[int | None, int | None, int, str | None]
"""Seeds, steps, seed and device, of the command line."""


def _groups(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Experiments that look at the same models, which are trained once, and the longest first."""
    from sae.superposition import EXPERIMENTS

    groups: dict[Any, list[str]] = {}
    for name in names:
        entry = EXPERIMENTS[name]
        models = tuple(entry.models(entry.seeds)) if entry.models else name
        groups.setdefault((models, repr(sorted(entry.options.items()))), []).append(name)
    return sorted(map(tuple, groups.values()), key=lambda group: -max(EXPERIMENTS[name].cost for name in group))


def _train_several(names: tuple[str, ...], options: _Options, progress: Any = None) -> dict[str, _Result]:
    """Train the models that some experiments look at, once, and attack them for those that ask for that."""
    from sae.superposition import EXPERIMENTS, vulnerability

    seeds, steps, seed, device = options
    trained: Any = EXPERIMENTS[names[0]].run(seeds=seeds, steps=steps, seed=seed, device=device, progress=progress)
    attacked = {name: EXPERIMENTS[name].figure == "vulnerability" for name in names}
    return {name: (trained, vulnerability(trained.best(), seed=seed) if attacked[name] else None) for name in names}


def _document(trained: Trained | PhaseDiagram | Recovery, attacked: Vulnerability | None) -> dict[str, Any]:
    return attacked.describe() if attacked is not None else trained.describe()


def _table(trained: Any, attacked: Vulnerability | None) -> Any:
    if attacked is not None:
        columns = ["density", "features a dimension", "attacked", "random change"]
        values = (attacked.densities, attacked.features_per_dimension, attacked.attacked, attacked.random)
        return table(columns, [list(map(float, row)) for row in zip(*values, strict=True)], right="rrrr")
    if hasattr(trained, "agreement"):
        return _phases(trained)
    if hasattr(trained, "control_mmcs"):
        return _recovered(trained)
    columns = ["density", "n", "m", "represented", "D*", "dedicated", "shared", "loss", "solids"]
    return table(columns, [_row(s) for s in trained.best()], right="rrrrrrrr")


def _row(solution: Solution) -> list[object]:
    model, roles = solution.model, Counter(solution.roles())
    solids = Counter(p.name if p.name != "unrecognized" else f"group of {len(p.members)}" for p in solution.polytopes)
    return [
        sum(model.densities) / model.features,
        model.features,
        model.hidden,
        solution.represented,
        f"{solution.dimensions_per_feature:.3f}",
        roles["dedicated"],
        roles["shared"],
        solution.loss,
        ", ".join(f"{count} {name}" for name, count in solids.items()),
    ]


def _phases(diagram: PhaseDiagram) -> Any:
    """One letter a cell: i ignored, D a dimension of its own, s superposed; in color where closed forms disagree."""
    lines = []
    for r, row, expected_row in zip(diagram.importances, diagram.phases, diagram.expected, strict=True):
        cells = Text()
        for phase, expected in zip(row.tolist(), expected_row.tolist(), strict=True):
            cells.append("iDs"[phase] + " ", style="" if phase == expected else "bold red")
        lines.append([r, cells])
    about = f"densities {diagram.densities[0]:g} .. {diagram.densities[-1]:g}; {diagram.agreement:.0%} as closed forms"
    return table(["importance", about], lines, right="r")


def _recovered(recovery: Recovery) -> Any:
    """By density: mean cosine with the nearest latent, and the share of features recovered, beside the controls."""
    columns = ["density", "represented", "active", *recovery.names, *recovery.controls]
    lines = []
    for d, density in enumerate(recovery.densities):
        pairs = [*zip(recovery.mmcs[:, d], recovery.recovered[:, d], strict=True)]
        pairs += zip(recovery.control_mmcs[:, d], recovery.control_recovered[:, d], strict=True)
        cells = [f"{mmcs.mean():.2f} {share.mean():4.0%}" for mmcs, share in pairs]
        lines.append([density, f"{recovery.represented[d].mean():.3g}", f"{recovery.active[d].mean():.2g}", *cells])
    return table(columns, lines, right="r" * len(columns))


def _draw(entry: Experiment, trained: Any, attacked: Vulnerability | None, folder: Path) -> None:
    from circuits.plot import save_figure
    from circuits.plot.superposition import charts, models as superposition
    from sae.superposition import PLATEAUS, feature_dimensionality

    file = folder / f"{entry.name}.png"
    if attacked is not None:
        save_figure(charts.vulnerability_figure(attacked), file)
        return
    if entry.figure == "recovery":
        from circuits.plot.superposition.recovery import recovery_figure

        save_figure(recovery_figure(trained), file)
        return
    if entry.figure == "phases":
        save_figure(charts.phase_figure(trained), file)
        return
    best: Sequence[Solution] = list(trained.best())
    if entry.figure == "dynamics":
        index = min(range(len(trained)), key=lambda i: float(trained.losses[i]))
        losses, weights = trained.history(index)
        dims = feature_dimensionality(weights)
        save_figure(charts.dynamics_figure(trained.steps, losses, dims, PLATEAUS), file)
    elif entry.figure == "dimensions":
        save_figure(charts.dimensions_figure(best, PLATEAUS), file)
        panels = [best[i] for i in _telling(best)]
        captions = [f"density {100 * sum(s.model.densities) / s.model.features:.3g} %" for s in panels]
        groups = [(c, s.directions, s.polytopes) for c, s in zip(captions, panels, strict=True)]
        save_figure(superposition.graph_figure(groups), folder / f"{entry.name}-graph.png")
    else:
        draw = {
            "gram": superposition.gram_figure,
            "planes": superposition.planes_figure,
            "neurons": superposition.neurons_figure,
        }[entry.figure]
        save_figure(draw(best), file)


def _telling(best: Sequence[Solution]) -> list[int]:
    """Some models of a sweep: those with most solids, each kind once, and evenly many of the sparser rest."""
    solids = [sum(p.name not in ("unrecognized", "dedicated") for p in s.polytopes) for s in best]
    kinds = [frozenset(p.name for p in s.polytopes) for s in best]
    ranked: list[int] = []
    for i in sorted(range(len(best)), key=lambda i: -solids[i]):
        if len(ranked) < _PANELS // 2 and solids[i] and kinds[i] not in [kinds[j] for j in ranked]:
            ranked.append(i)
    rest = [i for i in range(max(ranked, default=0) + 1, len(best)) if i not in ranked]
    step = max(1, len(rest) // (_PANELS - len(ranked)))
    return sorted({*ranked, *rest[::step][: _PANELS - len(ranked)]})
