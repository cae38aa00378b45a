"""Named experiments: the models behind each figure of the paper, in sizes that train in about a minute."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from circuits.errors import did_you_mean, shorten
from sae.superposition.sae_recovery import Recovery, recovery
from sae.superposition.toy.phase_diagram import PhaseDiagram, phase_diagram
from sae.superposition.toy.results import Trained
from sae.superposition.toy.toy_models import ToyError, ToyModel, decaying, density_schedule, grid
from sae.superposition.toy.train import train
from zoo.progress import Progress


@dataclass(frozen=True)
class Experiment:
    """A sweep with a name.

    Attributes:
        name: by which it is called; what: one line on what it shows.
        models: builds the models to train, given the number of seeds; or
        function: in place of `train`, `phase_diagram` or `recovery`.
        options: of `train`, or of that function.
        seeds: runs of each setting, by default.
        figure: kind of its figure.
        cost: rough CPU-seconds of its training, to start the longest first.
    """

    name: str
    what: str
    figure: str
    models: Callable[[int], list[ToyModel]] | None = None
    function: Callable[..., PhaseDiagram | Recovery] | None = None
    seeds: int = 4
    options: dict[str, Any] = field(default_factory=dict)
    cost: int = 10

    @property
    def count(self) -> int:
        """Number of toy models that it trains by default."""
        if self.models is not None:
            return len(self.models(self.seeds))
        return len(self.options["densities"]) * len(self.options.get("importances", (1.0,))) * self.seeds

    def run(
        self,
        *,
        seeds: int | None = None,
        steps: int | None = None,
        seed: int = 0,
        device: str | None = None,
        progress: Progress = None,
    ) -> Trained | PhaseDiagram | Recovery:
        """Train all its models at once.

        Args:
            seeds, steps: other numbers than its own.
            seed: added to the seeds of weights and examples.
            device, progress: as in `train`.

        Raises:
            ToyError: numbers out of range.
        """
        runs = self.seeds if seeds is None else seeds
        if runs < 1:
            raise ToyError(f"seeds={runs}: at least 1")
        options = self.options | ({} if steps is None else {"steps": steps})
        if self.function is not None:
            return self.function(seeds=runs, seed=seed, device=device, progress=progress, **options)
        assert self.models is not None
        models = [_shifted(model, seed) for model in self.models(runs)]
        return train(models, device=device, progress=progress, **options)


def _shifted(model: ToyModel, seed: int) -> ToyModel:
    return replace(model, seed=model.seed + seed, data_seed=model.data_seed + seed) if seed else model


def _sets(seeds: int) -> list[ToyModel]:
    pairs = ((0, 1), (2, 3))
    four = [(4, {"correlated": pairs}), (4, {"exclusive": pairs}), (4, {})]
    six: list[tuple[int, dict[str, Any]]] = [(6, {"correlated": ((0, 1), (2, 3), (4, 5))})]
    return [m for n, sets in four + six for m in grid(n, 2, densities=0.2, seeds=seeds, **sets)]


_PHASES = {
    "importances": tuple(round(10 ** (-1 + 2 * i / 13), 6) for i in range(14)),
    "densities": tuple(round(0.01 ** (i / 14), 6) for i in range(15)),
}

EXPERIMENTS: dict[str, Experiment] = {
    e.name: e
    for e in (
        Experiment(
            "demonstration",
            "20 features of falling importance in 5 dimensions: the sparser, the more are represented",
            "gram",
            lambda seeds: grid(
                20, 5, densities=(1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001), seeds=seeds, importance=decaying(20, 0.7)
            ),
            cost=33,
        ),
        Experiment(
            "planes",
            "5 features in 2 dimensions, drawn: orthogonal pair, antipodal pairs, pentagon",
            "planes",
            lambda seeds: grid(5, 2, densities=density_schedule(8, 0.01), seeds=seeds, importance=decaying(5, 0.9)),
            seeds=8,
            cost=17,
        ),
        Experiment(
            "geometry",
            "100 features in 10 dimensions: dimensions per feature sticks at plateaus, features form solids",
            "dimensions",
            lambda seeds: grid(100, 10, densities=density_schedule(20, 0.02), seeds=seeds),
            seeds=1,
            options={"steps": 6000, "batch": 512},
            cost=71,
        ),
        Experiment(
            "phase-2-1",
            "2 features in 1 dimension: ignored, dedicated or superposed, against the closed form",
            "phases",
            function=phase_diagram,
            seeds=5,
            options={"hidden": 1, **_PHASES},
        ),
        Experiment(
            "phase-3-2",
            "3 features in 2 dimensions: the same for the third",
            "phases",
            function=phase_diagram,
            seeds=5,
            options={"hidden": 2, **_PHASES},
        ),
        Experiment(
            "correlated",
            "features that come together lie at right angles, features that exclude each other are opposed",
            "planes",
            _sets,
            seeds=8,
            options={"steps": 5000},
        ),
        Experiment(
            "dynamics",
            "8 features in 3 dimensions while they are trained: dimensionalities jump, and end as a square antiprism",
            "dynamics",
            lambda seeds: grid(8, 3, densities=0.05, seeds=seeds),
            seeds=4,
            options={"steps": 4000, "records": 160},
        ),
        Experiment(
            "adversarial",
            "the more features share a dimension, the more a small change of the input does",
            "vulnerability",
            lambda seeds: grid(100, 10, densities=density_schedule(20, 0.02), seeds=seeds),
            seeds=1,
            options={"steps": 6000, "batch": 512},
            cost=71,
        ),
        Experiment(
            "absolute",
            "absolute values of 10 features by 5 neurons: computation in superposition",
            "neurons",
            lambda seeds: grid(
                10, 5, densities=(1.0, 0.3, 0.1, 0.03, 0.01), seeds=seeds, importance=decaying(10, 0.8), kind="absolute"
            ),
            options={"steps": 6000},
        ),
        Experiment(
            "privileged",
            "10 features in 5 neurons: with ReLU on hidden dimensions their axes matter",
            "neurons",
            lambda seeds: grid(
                10,
                5,
                densities=(1.0, 0.3, 0.1, 0.03, 0.01),
                seeds=seeds,
                importance=decaying(10, 0.75),
                kind="privileged",
            ),
            options={"steps": 6000},
        ),
        Experiment(
            "recovery",
            "sparse autoencoders on the hidden layer: they find sparse features, and mixtures where features are dense",
            "recovery",
            function=recovery,
            seeds=2,
            options={"densities": (1.0, 0.7, 0.5, 0.35, 0.25, 0.1, 0.03, 0.01), "steps": 4000},
            cost=120,
        ),
    )
}


def experiment(name: str) -> Experiment:
    """The experiment called `name`.

    Raises:
        ToyError: there is none.
    """
    if name not in EXPERIMENTS:
        raise ToyError(f"no experiment {shorten(name)!r}.{did_you_mean(name, EXPERIMENTS)}")
    return EXPERIMENTS[name]
