"""The tasks of the benchmark: for a class of the scenes and one of its parts, what the score of the class stands on.

A task has minimal pairs of images: a scene, and the same with the part removed, moved or replaced. The circuit that is
looked for makes the difference of the class score between the two. It is ranked on some pairs and tried on others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.model import Model, load
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.ablation.edge_ablation import Step, chain
from circuits.tracing.ablation.measured import Measure
from circuits.tracing.baselines import Counterfactual
from circuits.tracing.rankings.ranking import Ranked
from circuits.tracing.target import Target, target_of
from zoo.common.checks import one_of, whole_number
from zoo.images.sources import Images, scene_pairs
from zoo.progress import Progress, reporter
from zoo.scenes.generate import CLASSES
from zoo.scenes.minimal_pairs import CHANGES, parts_of
from zoo.scenes.network import OBJECT_LAYER, PART_LAYER, UNION_LAYER, taught_parts

LAYERS = (PART_LAYER, OBJECT_LAYER, UNION_LAYER)
"""Whose units, and the edges between them, are ranked."""
PAIRS = 32
"""Pairs to rank on, and as many others to try circuits on."""
LEAST_FALL = 1.0
"""Mean fall of the class score, on the pairs ranked on, below which the part does not matter: odds that change by e."""


@dataclass(frozen=True)
class Known:
    """The right answer of a task.

    Attributes:
        units: addresses of the units that are right; layer: whose other units are wrong, or those of all layers.
        edges: names of the edges that are right, all others being wrong; none where only the units are known.
    """

    units: frozenset[str]
    layer: str | None = None
    edges: frozenset[str] = frozenset()


@dataclass(frozen=True, eq=False)
class Task:
    """What to rank, and on which images.

    Attributes:
        name: "car/wheel/removed", or "planted-3".
        model: the network; target: a score; layers: earliest first.
        images, against: scenes, and for each its counterfactual: what a ranking may see.
        held_out, held_out_against: others of another seed, on which circuits are tried.
        measure: of the target: its mean, or its explained variance where pairs are random.
        known: what the right units or edges are, where that is known.
        exact: the magnitudes of exact patching, once they were computed; named: what `names` gives, likewise.
    """

    name: str
    model: Model
    target: str
    layers: tuple[str, ...]
    images: Images = field(repr=False)
    against: Images = field(repr=False)
    held_out: Images = field(repr=False)
    held_out_against: Images = field(repr=False)
    measure: Measure = "mean"
    known: Known | None = None
    exact: dict[Ranked, Tensor] = field(default_factory=dict, repr=False)
    named: dict[Ranked, list[str]] = field(default_factory=dict, repr=False)

    @cached_property
    def explained(self) -> Target:
        """The target, ready to run."""
        return target_of(self.model, self.target)

    @cached_property
    def steps(self) -> list[Step]:
        """From layer to layer, and to the target."""
        return chain(self.model, self.explained, self.layers)

    def names(self, of: Ranked) -> list[str]:
        """Addresses of all units, or names of all edges, in the order that arrays of scores have."""
        if of not in self.named:
            name, layers = self.model.name, self.model.layers
            self.named[of] = (
                [step.edge(i, name) for step in self.steps for i in range(step.size)]
                if of == "edges"
                else [f"{name}/{layer}:{c}" for layer in self.layers for c in range(layers[layer].channels)]
            )
        return list(self.named[of])

    @cached_property
    def by_layer(self) -> dict[str, Ablation]:
        """Layer -> its units under ablation on the images that are ranked on."""
        return {layer: self._ablation([layer], self.images, self.against) for layer in self.layers}

    @cached_property
    def together(self) -> Ablation:
        """All layers under ablation on the images that are ranked on."""
        return self._ablation(self.layers, self.images, self.against)

    @cached_property
    def trial(self) -> Ablation:
        """All layers under ablation on the held-out images."""
        return self._ablation(self.layers, self.held_out, self.held_out_against)

    def _ablation(self, layers: Sequence[str], images: Images, against: Images) -> Ablation:
        return Ablation(
            self.model, self.explained, layers, images, Counterfactual(against), measure=self.measure, batch_size=64
        )


def tasks(
    change: str = "removed",
    *,
    model: Model | str = "scenes",
    classes: Sequence[str] | None = None,
    pairs: int = PAIRS,
    seed: int = 0,
    progress: Progress = None,
) -> tuple[list[Task], Mapping[str, float]]:
    """The tasks of every class and each of its parts, and those that are none.

    Args:
        change: what is done to the part: "removed", "moved" or "replaced".
        model: a network of the scenes' classes, or its name.
        classes: default all that are made of parts.
        pairs: to rank on, and as many to try circuits on.
        seed: of the pairs that are ranked on; the next is that of the others.
        progress: True for a bar, or a function of (done, total) class-part pairs.

    Returns:
        The tasks; and for the parts without which the class score falls by less than `LEAST_FALL` on the images ranked
        on, name -> that fall: there is nothing to be explained.

    Raises:
        CircuitsError: unknown change or class; a model of other classes or layers.
    """
    one_of("change", change, CHANGES)
    whole_number("pairs", pairs, least=2)
    whole_number("seed", seed, least=0, most=2**30)
    known = [name for name in CLASSES if name != "nothing"]
    chosen = known if classes is None else list(classes)
    for name in chosen:
        one_of("class", name, known)
    network = load(model) if isinstance(model, str) else model
    missing = [layer for layer in LAYERS if layer not in network.layers]
    if missing or list(network.classes or []) != list(CLASSES):
        raise CircuitsError(f"the benchmark is of networks of the classes and layers of scenes; {network.name} is not")
    listed: list[Task] = []
    unused: dict[str, float] = {}
    both = [(kind, part) for kind in chosen for part in parts_of(kind)]
    with reporter(progress, "part") as report:
        for done, (kind, part) in enumerate(both):
            task = _task(network, kind, part, change, pairs, seed)
            first = task.by_layer[LAYERS[-1]]
            fall = float((first.clean - first.nothing).mean())
            if fall < LEAST_FALL:
                unused[task.name] = fall
            else:
                listed.append(task)
            report(done + 1, len(both))
    return listed, unused


def _task(model: Model, kind: str, part: str, change: str, pairs: int, seed: int) -> Task:
    images, against = scene_pairs(kind, part, change, pairs, seed)
    held_out, held_out_against = scene_pairs(kind, part, change, pairs, seed + 1)
    taught = taught_parts()[part] if model.name == "scenes" else None
    return Task(
        name=f"{kind}/{part}/{change}",
        model=model,
        target=f"{model.logits}:{CLASSES.index(kind)}",
        layers=LAYERS,
        images=images,
        against=against,
        held_out=held_out,
        held_out_against=held_out_against,
        known=None if taught is None else Known(frozenset([f"{model.name}/{PART_LAYER}:{taught}"]), PART_LAYER),
    )
