"""A target's response when some edges of a chain of layers carry activations, and all others the baseline.

An edge leads from a unit of one layer to a unit of the next. A unit is computed anew from what its edges bring: from a
source whose edge is kept the activation that the source has in this run, from all others the baseline. That is path
patching (Wang et al. 2022, arXiv 2211.00593; Goldowsky-Dill et al. 2023, 2304.05969), with the whole network between
two layers, so that bottlenecks, pools and ReLUs count. Units of the first layer have their activations. An edge that
is not on a path of kept edges from the first layer to the target has no effect: a unit into which no edge is kept is at
its baseline.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from circuits.errors import CircuitsError
from circuits.network.address import Unit
from circuits.network.model import Model
from circuits.network.subnetwork import Segment
from circuits.tracing.ablation.ablation import Ablation, UnitsByLayer
from circuits.tracing.ablation.measured import Batch
from circuits.tracing.target import Target
from zoo.networks.own import command_line

ARROW = "->"
"""Between the addresses of source and child: `scenes/mixed3b:4->mixed4a:11`."""


@dataclass(frozen=True)
class Step:
    """From a layer of a chain to the one after it.

    Attributes:
        layer: the sources' layer; width: its units.
        after: the children's layer; None where the target is the only child.
        names: of the children, as in the names of edges.
    """

    layer: str
    width: int
    after: str | None
    names: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of edges; edge `child * width + source` is the position of each."""
        return len(self.names) * self.width

    def edge(self, index: int, model: str) -> str:
        """Name of an edge by its position."""
        child, source = divmod(index, self.width)
        return f"{Unit(self.layer, source, model)}{ARROW}{self.names[child]}"

    def child(self, model: Model, index: int, target: Target) -> Segment:
        """The network from the layer to one of the children."""
        if self.after is None:
            return target.segment(model, self.layer)
        return Segment(model, self.layer, Unit(self.after, index, model.name))


def chain(model: Model, target: Target, layers: Sequence[str]) -> list[Step]:
    """The steps from layer to layer, earliest first; the last leads to the target.

    Args:
        layers: earliest first.

    Raises:
        CircuitsError: something reaches a layer, or the target, without going through the layer before.
    """
    if target.of_predictions:
        raise CircuitsError("edges lead to units, differences or functions: of the predictions rank the units")
    latents = [layer for layer in layers if "~" in layer]
    if latents:
        raise CircuitsError(f"edges are between channels: of the latents of {latents[0]} rank the units")
    steps = []
    for layer, after in zip(layers, [*layers[1:], None], strict=True):
        width = model.layers[layer].channels
        short = target.name.removeprefix(f"{model.name}/")
        names = (short,) if after is None else tuple(f"{after}:{c}" for c in range(model.layers[after].channels))
        step = Step(layer, width, after, names)
        if step.child(model, 0, target).bypassed:
            if model.graph is None:
                raise CircuitsError(
                    f"edges of {model.name} are not known: torch.fx cannot trace this network; rank its units"
                )
            layers = command_line("layers", model.name, model=model.name)
            raise CircuitsError(
                f"{after or target.name} also depends on what does not go through {layer}: edges lead through layers "
                f"that every path crosses ({layers}); rank units, or choose others"
            )
        steps.append(step)
    return steps


class EdgeAblation:
    """Responses of a target under ablation of edges.

    Attributes:
        ablation: of the units of the chain's layers: images, baseline, and what is measured.
        steps: from layer to layer, earliest first.
    """

    def __init__(self, ablation: Ablation) -> None:
        self.ablation = ablation
        model, target = ablation.model, ablation.target
        self.steps = chain(model, target, ablation.layers)
        self._children = [[step.child(model, c, target) for c in range(len(step.names))] for step in self.steps]

    def members(self, edges: Sequence[str]) -> dict[str, set[int]]:
        """Layer -> positions of some edges in the step that starts there.

        Raises:
            CircuitsError: a name that is none of the chain's edges.
        """
        children = [{name: c for c, name in enumerate(step.names)} for step in self.steps]
        number = {step.layer: i for i, step in enumerate(self.steps)}
        by_layer: dict[str, set[int]] = {step.layer: set() for step in self.steps}
        for edge in edges:
            address, _, child = edge.partition(ARROW)
            source = self.ablation.model.unit(address)
            i = number.get(source.layer)
            if i is None or child not in children[i]:
                raise CircuitsError(
                    f"{edge} is not an edge from {' to '.join([*number, self.steps[-1].names[0]])}: an edge is named "
                    f"as {self.steps[0].edge(0, self.ablation.model.name)}"
                )
            by_layer[source.layer].add(children[i][child] * self.steps[i].width + (source.index or 0))
        return by_layer

    @torch.no_grad()
    def respond(self, edges: UnitsByLayer) -> Tensor:
        """Response `(N, h, w)` when only some edges carry activations.

        Args:
            edges: layer -> positions of edges in the step that starts there.
        """
        masks = self._on_paths(edges)
        if not masks[-1].any():
            return self.ablation.nothing
        return torch.cat([self._ablated(batch, masks) for batch in self.ablation.batches()])

    def _on_paths(self, edges: UnitsByLayer) -> list[Tensor]:
        """For each step `(children, sources)`: kept edges on a path of such from the first layer to the target."""
        masks = []
        reached = torch.ones(self.steps[0].width, dtype=torch.bool)
        for step in self.steps:
            mask = torch.zeros(step.size, dtype=torch.bool)
            mask[sorted(edges.get(step.layer, set()))] = True
            masks.append(mask.view(-1, step.width) & reached)
            reached = masks[-1].any(dim=1)
        for mask, earlier in zip(masks[:0:-1], masks[-2::-1], strict=True):
            earlier &= mask.any(dim=0)[:, None]
        return masks

    def _ablated(self, batch: Batch, masks: Sequence[Tensor]) -> Tensor:
        x = batch.acts
        for step, children, mask in zip(self.steps, self._children, masks, strict=True):
            rows = mask.any(dim=1).nonzero().flatten().tolist()
            outputs = {c: self._child(batch, step, children[c], x, mask[c]) for c in rows}
            if step.after is None:
                return self.ablation.target.values(outputs[0])
            some = next(iter(outputs.values()))
            x = batch.baselines[step.after].expand(len(some), -1, *some.shape[2:]).clone()
            for c, out in outputs.items():
                x[:, c] = out[:, 0]
        raise AssertionError("the last step leads to the target")

    def _child(self, batch: Batch, step: Step, child: Segment, x: Tensor, natural: Tensor) -> Tensor:
        holds = self.ablation.holds(batch, step.layer, natural.to(x.device))
        fed = holds.pop(step.layer)(x)
        out: Tensor = child.respond(fed, {}, holds)
        return out
