"""Does a circuit carry its target? Faithfulness, completeness and minimality, each against random circuits.

*Faithfulness*: set every unit of the source layers that is not in the circuit to its mean, and see how much
of the target's response is left, as explained variance over all positions and images. *Completeness*:
set only the circuit's units to their means, and see how much is lost. A number without the same number for
random circuits of that size means nothing, so both come with at least 50 of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.network.subnetwork import Segment
from circuits.tracing.circuit import Circuit, Score
from zoo.common.autograd import outside_inference_mode
from zoo.images.sources import open_images
from zoo.progress import Progress, reporter

UnitsByLayer = dict[str, set[int]]


@outside_inference_mode
def score(
    model: Model,
    circuit: Circuit,
    *,
    images: Any,
    random: int = 50,
    limit: int = 200,
    seed: int = 0,
    batch_size: int = 32,
    progress: Progress = None,
) -> Score:
    """Score a circuit by mean ablation, against random circuits with as many units in each layer.

    Args:
        model: the model it was traced in.
        circuit: the circuit.
        images: images in any form that `capture` takes.
        random: number of random circuits.
        limit: at most this many images are used (drawn with `seed`), spread over the whole source.
        seed: for the random circuits and the choice of images.
        batch_size: images per forward pass.
        progress: True for a bar, or a function of (done, total).

    Raises:
        CircuitsError: the circuit is of another model, or has no source units.
    """
    if circuit.model != model.name:
        raise CircuitsError(f"the circuit is of model {circuit.model}, not of {model.name}")
    circuit_units = members(circuit)
    if not circuit_units:
        raise CircuitsError(f"the circuit of {circuit.target} has no source units to score")
    if random < 1:
        raise CircuitsError(f"a score needs random circuits to compare with; got random={random}")
    dataset = open_images(images)
    generator = torch.Generator().manual_seed(seed)
    if len(dataset) > limit:
        chosen = torch.randperm(len(dataset), generator=generator)[:limit].sort().values.tolist()
        dataset = dataset.subset(chosen)
    ablation = MeanAblation(model, model.unit(circuit.target), list(circuit_units), dataset, batch_size=batch_size)
    widths = {layer: model.layers[layer].channels for layer in circuit_units}
    control = [_random_members(circuit_units, widths, generator) for _ in range(random)]
    rounds = 2 * (1 + random) + sum(len(units) for units in circuit_units.values())
    with _ticker(rounds, progress) as tick:
        faithfulness = ablation.keep(circuit_units, tick)
        completeness = 1 - ablation.drop(circuit_units, tick)
        by_chance = [ablation.keep(c, tick) for c in control]
        lost_by_chance = [1 - ablation.drop(c, tick) for c in control]
        minimality = {}
        for layer, units in circuit_units.items():
            for index in sorted(units):
                without = {**circuit_units, layer: units - {index}}
                minimality[str(Unit(layer, index, model.name))] = faithfulness - ablation.keep(without, tick)
    return Score(
        faithfulness=faithfulness,
        completeness=completeness,
        faithfulness_percentile=_percentile(faithfulness, by_chance),
        completeness_percentile=_percentile(completeness, lost_by_chance),
        random_faithfulness=tuple(by_chance),
        random_completeness=tuple(lost_by_chance),
        minimality=minimality,
        n_images=len(dataset),
        seed=seed,
    )


def members(circuit: Circuit) -> UnitsByLayer:
    """Source units of a circuit by layer, in the order of the layers going back."""
    by_layer: UnitsByLayer = {}
    for layer in circuit.layers[1:]:
        units = {n.index for n in circuit.nodes if n.layer == layer and n.unit != circuit.target}
        if units:
            by_layer[layer] = units
    return by_layer


class MeanAblation:
    """A target's response under mean ablation of chosen units in some source layers.

    Runs only the part of the network from the earliest source layer to the target; where only a few units
    of a layer in between vary, only those are computed.

    Attributes:
        clean: the target's response with nothing ablated, `(N, h, w)`.
    """

    def __init__(self, model: Model, target: Unit, layers: Sequence[str], images: Any, *, batch_size: int = 32) -> None:
        self.model, self.target = model, target
        order = list(model.layers)
        self.layers = sorted(layers, key=order.index)  # earliest first
        self._whole = Segment(model, self.layers[0], target)
        self._batches: list[tuple[Tensor, Any]] = []
        clean: list[Tensor] = []
        totals: dict[str, Tensor] = {name: torch.zeros((), dtype=torch.float64) for name in self.layers}
        count = dict.fromkeys(self.layers, 0)

        def tally(name: str) -> Callable[[Tensor], Tensor]:
            def add(acts: Tensor) -> Tensor:
                maps = acts if acts.ndim == 4 else acts[:, :, None, None]
                totals[name] = totals[name] + maps.sum(dim=(0, 2, 3)).cpu().double()
                count[name] += maps.shape[0] * maps.shape[2] * maps.shape[3]
                return acts

            return add

        with torch.no_grad():
            for _, batch in open_images(images).batches(model.input, batch_size=batch_size):
                acts, context = self._whole.begin(batch)
                self._batches.append((acts, context))
                taps = {name: tally(name) for name in self.layers[1:]}
                clean.append(self._whole.respond(tally(self.layers[0])(acts), context, taps)[:, 0])
        self.means = {name: (totals[name] / count[name]).float().to(model.device) for name in self.layers}
        self.clean = torch.cat(clean)
        spread = float((self.clean - self.clean.mean()).pow(2).sum())
        if spread == 0:
            raise CircuitsError(
                f"{target} has the same response to all of these images; give images on which it varies"
            )
        self._spread = spread

    def keep(self, units: UnitsByLayer, tick: Callable[[], None] | None = None) -> float:
        """Explained variance of the target when all units of the layers but `units` are at their means."""
        response = self._respond_narrow(units)
        if response is None:
            edits = {name: self._hold(name, units.get(name, set()), invert=True) for name in self.layers}
            response = self._respond(edits)
        return self._explained(response, tick)

    def drop(self, ablated: UnitsByLayer, tick: Callable[[], None] | None = None) -> float:
        """Explained variance of the target when only the units `ablated` are at their means."""
        edits = {name: self._hold(name, ablated.get(name, set()), invert=False) for name in self.layers}
        return self._explained(self._respond(edits), tick)

    def lowers(self, ablated: UnitsByLayer) -> float:
        """Share of the target's summed positive response that is lost when `ablated` are at their means."""
        edits = {name: self._hold(name, ablated.get(name, set()), invert=False) for name in self.layers}
        active = self.clean > 0
        lost = (self.clean - self._respond(edits))[active].sum()
        return float(lost / self.clean[active].sum().clamp_min(1e-12))

    def _hold(self, layer: str, units: set[int], *, invert: bool) -> Callable[[Tensor], Tensor]:
        mean = self.means[layer]
        mask = torch.zeros(len(mean), dtype=torch.bool, device=mean.device)
        mask[sorted(units)] = True
        mask = ~mask if invert else mask

        def hold(acts: Tensor) -> Tensor:
            shape = (1, -1, *[1] * (acts.ndim - 2))
            return torch.where(mask.view(shape), mean.view(shape), acts)

        return hold

    def _explained(self, response: Tensor, tick: Callable[[], None] | None) -> float:
        error = float((self.clean - response).pow(2).sum())
        if tick is not None:
            tick()
        return 1 - error / self._spread

    def _respond_narrow(self, varying: UnitsByLayer) -> Tensor | None:
        """The target when only `varying` vary: of each layer on the way only these units are computed.

        None where something bypasses a layer on the way, so that the whole segment has to run.
        """
        steps: list[tuple[Segment, list[int]]] = []
        for i, layer in enumerate(self.layers):
            after = self.layers[i + 1] if i + 1 < len(self.layers) else None
            units = sorted(varying.get(after, set())) if after is not None else []
            targets = [self.target] if after is None else [Unit(after, u, self.model.name) for u in units]
            if not targets:
                return None
            segment = Segment(self.model, layer, targets)
            if segment.bypassed:
                return None
            steps.append((segment, units))
        hold = self._hold(self.layers[0], varying.get(self.layers[0], set()), invert=True)
        rows = []
        with torch.no_grad():
            for acts, _ in self._batches:
                x = hold(acts)
                for i, (segment, units) in enumerate(steps):
                    out = segment.respond(x, {})
                    if i + 1 < len(steps):
                        mean = self.means[self.layers[i + 1]]
                        x = mean.view(1, -1, 1, 1).repeat(len(out), 1, *out.shape[2:])
                        x[:, units] = out
                rows.append(out[:, 0])
        return torch.cat(rows)

    def _respond(self, edits: dict[str, Callable[[Tensor], Tensor]]) -> Tensor:
        first, later = self.layers[0], {n: f for n, f in edits.items() if n != self.layers[0]}
        with torch.no_grad():
            rows = [self._whole.respond(edits[first](acts), context, later)[:, 0] for acts, context in self._batches]
        return torch.cat(rows)


def _random_members(circuit_units: UnitsByLayer, widths: dict[str, int], generator: torch.Generator) -> UnitsByLayer:
    return {
        layer: set(torch.randperm(widths[layer], generator=generator)[: len(units)].tolist())
        for layer, units in circuit_units.items()
    }


def _percentile(value: float, control: Sequence[float]) -> float:
    return 100.0 * sum(c < value for c in control) / len(control)


@contextmanager
def _ticker(total: int, progress: Progress) -> Iterator[Callable[[], None]]:
    """A function to call after each of `total` circuits."""
    done = 0
    with reporter(progress, "circuit") as report:

        def tick() -> None:
            nonlocal done
            done += 1
            report(done, total)

        yield tick
