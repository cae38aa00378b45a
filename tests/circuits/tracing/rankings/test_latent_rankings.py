"""Rankings, size curves and scores of latents, against loops in plain PyTorch: encode, edit, decode, add the error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import circuits
import sae
from circuits import baselines
from circuits.errors import CircuitsError
from circuits.tracing.ablation.ablation import Ablation
from circuits.tracing.curves.size_curve import size_curve
from circuits.tracing.target import target_of
from tests import nets
from tests.circuits.tracing.test_latent_sources import CHANNELS, SIZE, active_unit, attached
from zoo.images.sources import open_images

LATENTS = 9
UNITS = LATENTS + 1
Rest = Callable[[Tensor], Tensor]


@dataclass
class Case:
    """A network with a dictionary that reconstructs a layer badly, what comes after the layer, and a target."""

    model: circuits.Model
    dictionary: sae.SAE
    layer: str
    target: str
    rest: Rest
    images: Tensor

    @property
    def space(self) -> str:
        return f"{self.layer}~p"

    def acts(self, images: Tensor) -> Tensor:
        return circuits.capture(self.model, images, self.layer)[self.layer].movedim(1, -1)

    def parts(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Latents `(N, h, w, m)` and errors `(N, h, w, C)`."""
        acts = self.acts(images)
        with torch.no_grad():
            latents = self.dictionary.encode(acts.reshape(-1, CHANNELS)).view(*acts.shape[:-1], LATENTS)
        return latents, acts - (latents @ self.dictionary.write + self.dictionary.offset).detach()

    def respond(self, latents: Tensor, error: Tensor) -> Tensor:
        acts = latents @ self.dictionary.write.detach() + self.dictionary.offset.detach() + error
        return self.rest(acts.movedim(-1, 1))

    def base(self, baseline: str) -> tuple[Tensor, Tensor]:
        """What latents and error are set to."""
        latents, error = self.parts(self.images)
        if baseline == "mean":
            return tuple(t.mean(dim=(0, 1, 2), keepdim=True).expand_as(t) for t in (latents, error))  # type: ignore[return-value]
        if baseline == "zero":
            return torch.zeros_like(latents), torch.zeros_like(error)
        return self.parts(self.others)

    @property
    def others(self) -> Tensor:
        return nets.pictures(len(self.images), SIZE, seed=8)

    def options(self, baseline: str) -> dict[str, Any]:
        own: dict[str, Any] = {"baseline": baseline} if baseline != "counterfactual" else {"against": self.others}
        return {"images": self.images, "layers": self.space, "measure": "explained variance", **own}

    def keep(self, units: set[int], baseline: str) -> Tensor:
        """Response when only some units, `LATENTS` for the error, are not at the baseline."""
        (latents, error), (base, base_error) = self.parts(self.images), self.base(baseline)
        mixed = base.clone()
        for m in units - {LATENTS}:
            mixed[..., m] = latents[..., m]
        return self.respond(mixed, error if LATENTS in units else base_error)


def convolution() -> Case:
    """A convolution reads the latents."""
    network = nets.sequential(
        nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(CHANNELS, 5, 3, padding=1), nn.ReLU()
    )
    return case(network, sae.ReLU(latents=LATENTS), "3")


def pooled() -> Case:
    """A max pool reads latents of which the three largest are taken at each position; the target is a class score.

    No two activations are equal, so that the pool's gradient is unique.
    """
    network = nets.sequential(
        nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Softplus(), nn.MaxPool2d(2), nn.Conv2d(CHANNELS, 5, 3, padding=1),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4),
    )  # fmt: skip
    return case(network, sae.TopK(latents=LATENTS, k=3), None)


def case(network: nn.Sequential, config: sae.SAEConfig, layer: str | None) -> Case:
    model, images = nets.wrap(network, SIZE), nets.pictures(6, SIZE)
    dictionary = attached(model, config)
    target = f"{model.logits}:2" if layer is None else active_unit(model, images, layer)
    channel = int(target.rpartition(":")[2])

    def rest(acts: Tensor) -> Tensor:
        out = network[2:](acts)[:, channel]
        return out if out.ndim == 3 else out[:, None, None]

    return Case(model, dictionary, "1", target, rest, images)


CASES = {"convolution": convolution, "pool, class score, TopK": pooled}
BY_CASE = [
    ("convolution", "mean"), ("convolution", "counterfactual"), ("convolution", "zero"),
    ("pool, class score, TopK", "counterfactual"), ("pool, class score, TopK", "zero"),
]  # fmt: skip


def close(values: list[float]) -> Any:
    """To single precision, of which the largest has the last digit."""
    return pytest.approx(values, abs=1e-5 + 1e-6 * max(map(abs, values)), rel=2e-5)


def spread(clean: Tensor) -> float:
    return float((clean - clean.mean()).pow(2).sum())


def scores_of(ranking: circuits.Ranking, space: str) -> list[float]:
    return [ranking.score_of(f"{space}:{m}") for m in range(LATENTS)] + [ranking.score_of(f"{space}:error")]


@pytest.mark.parametrize(("name", "baseline"), BY_CASE)
def test_patching_is_the_loop_over_latents_and_the_error(name: str, baseline: str) -> None:
    c = CASES[name]()
    everything = set(range(UNITS))
    with torch.no_grad():
        clean, nothing = c.keep(everything, baseline), c.keep(set(), baseline)
        weights = (clean - nothing) / spread(clean)
        lost = [clean - c.keep(everything - {m}, baseline) for m in range(UNITS)]
    expected = [float((weights * change).sum()) for change in lost]
    sizes = [float(change.pow(2).sum() / spread(clean)) ** 0.5 for change in lost]
    ranking = circuits.rank(c.model, c.target, share=1.0, method="patching", **c.options(baseline))
    assert scores_of(ranking, c.space) == close(expected)
    order = sorted(range(UNITS), key=lambda m: -sizes[m])
    assert [u.rpartition(":")[2] for u in ranking.units][:3] == ["error" if m == LATENTS else str(m) for m in order[:3]]
    assert sorted(ranking.magnitudes) == close(sorted(sizes))
    assert max(expected) > 0.05


@pytest.mark.parametrize("method", ["gradient", "integrated"])
@pytest.mark.parametrize(("name", "baseline"), BY_CASE)
def test_gradients_are_those_by_latents_and_error(name: str, baseline: str, method: str) -> None:
    c, steps = CASES[name](), 3
    (latents, error), (base, base_error) = c.parts(c.images), c.base(baseline)
    with torch.no_grad():
        clean, nothing = c.respond(latents, error), c.respond(base, base_error)
    total = torch.zeros(UNITS)
    for amount in [1.0] if method == "gradient" else [(k + 0.5) / steps for k in range(steps)]:
        leaves = [(b + amount * (a - b)).requires_grad_(True) for a, b in ((latents, base), (error, base_error))]
        response = c.respond(*leaves)
        weight = clean - nothing if method == "gradient" else 2 * (clean - response.detach())
        by_latent, by_error = torch.autograd.grad((weight * response).sum() / spread(clean), leaves)
        total[:LATENTS] += (by_latent * (latents - base)).sum(dim=(0, 1, 2))
        total[LATENTS] += (by_error * (error - base_error)).sum()
    expected = total if method == "gradient" else total / steps
    ranking = circuits.rank(c.model, c.target, share=1.0, method=method, steps=steps, **c.options(baseline))  # type: ignore[arg-type]
    assert scores_of(ranking, c.space) == close(expected.tolist())
    assert float(expected.abs().max()) > 0.05


def test_weights_are_kernels_of_latents_and_of_the_error() -> None:
    c = convolution()
    conv, channel = c.model.module[2], int(c.target.rpartition(":")[2])  # type: ignore[index]
    (latents, error), (base, base_error) = c.parts(c.images), c.base("mean")
    with torch.no_grad():
        clean, nothing = c.respond(latents, error), c.respond(base, base_error)
        parts = [(latents - base)[..., [m]] * c.dictionary.write[m] for m in range(LATENTS)] + [error - base_error]
        moved = [nn.functional.conv2d(p.movedim(-1, 1), conv.weight[[channel]], padding=1)[:, 0] for p in parts]
        expected = [float(((clean - nothing) * m).sum() / spread(clean)) for m in moved]
    ranking = circuits.rank(c.model, c.target, share=1.0, method="weights", **c.options("mean"))
    assert scores_of(ranking, c.space) == close(expected)
    behind = pooled()
    with pytest.raises(CircuitsError, match="a class score|after a pool, but latents are of 1"):
        circuits.rank(behind.model, behind.target, method="weights", **behind.options("zero"))


@pytest.mark.parametrize("method", ["gradient", "mask", "random"])
@pytest.mark.parametrize(("name", "baseline"), BY_CASE)
def test_curves_keep_what_the_loop_keeps(name: str, baseline: str, method: str) -> None:
    c = CASES[name]()
    options = c.options(baseline)
    ranking = circuits.rank(c.model, c.target, share=1.0, method=method, steps=4, **options)  # type: ignore[arg-type]
    curve = size_curve(
        c.model, ranking, images=c.images, against=options.get("against"), sizes=[1, 4, UNITS], random=3, held_out=False
    )
    numbers = [LATENTS if u.endswith(":error") else int(u.rpartition(":")[2]) for u in ranking.units]
    assert sorted(numbers) == list(range(UNITS)) and curve.n_units == UNITS
    with torch.no_grad():
        clean, nothing = c.keep(set(numbers), baseline), c.keep(set(), baseline)
        errors = [float((clean - c.keep(set(numbers[:n]), baseline)).pow(2).sum()) for n in (1, 4, UNITS)]
    whole = float((clean - nothing).pow(2).sum())
    assert curve.f == pytest.approx([1 - e / whole for e in errors], abs=1e-4, rel=1e-5)
    assert curve.f[-1] == pytest.approx(1) and all(null.f.shape == (3, 3) for null in curve.nulls.values())


def test_a_score_keeps_the_latents_of_the_circuit_and_the_error_where_it_is_asked_to() -> None:
    c = convolution()
    circuit = circuits.trace(c.model, c.target, images=c.images, layers=[c.space], width=3)
    units = {circuits.Unit.parse(node.unit).index or 0 for node in circuit.nodes[1:]}
    everything = set(range(UNITS))
    for kept, keep_error in ((units, False), (units | {LATENTS}, True)):
        score = circuits.score(c.model, circuit, images=c.images, random=4, keep_error=keep_error)
        with torch.no_grad():
            clean = c.keep(everything, "mean")
            error, lost = clean - c.keep(kept, "mean"), clean - c.keep(everything - units, "mean")
        assert score.faithfulness == pytest.approx(1 - float(error.pow(2).sum()) / spread(clean), abs=1e-4)
        assert score.completeness == pytest.approx(float(lost.pow(2).sum()) / spread(clean), abs=1e-4)
        assert set(score.minimality) == {node.unit for node in circuit.nodes[1:]}
        assert score.errors_kept is keep_error
    compared = circuits.score(c.model, circuit, images=c.images, random=2, mask=True).comparison
    assert compared is not None and compared.n_units == UNITS
    channels = circuits.trace(c.model, c.target, images=c.images, layers=["1"])
    with pytest.raises(CircuitsError, match="its sources are no latents"):
        circuits.score(c.model, channels, images=c.images, keep_error=True)


def test_all_latents_and_the_error_are_the_activations() -> None:
    c = pooled()
    ablation = Ablation(
        c.model, target_of(c.model, c.target), [c.space], open_images(c.images), baselines.Resample(seed=1)
    )
    batch, _ = ablation.batch(0)
    torch.testing.assert_close(ablation.sources[c.space].acts(batch.parts), batch.acts, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ablation.respond({c.space: set(range(UNITS))}), ablation.clean, atol=1e-6, rtol=1e-5)
    latents, _ = c.parts(c.images)
    assert int((latents != 0).sum(dim=-1).max()) == 3


def test_an_edit_does_not_select_latents_anew() -> None:
    """With one of the three taken out, a TopK dictionary would let in the fourth, if it were asked again."""
    c = pooled()
    latents, error = c.parts(c.images)
    first = int(latents.sum(dim=(0, 1, 2)).argmax())
    without = latents.clone()
    without[..., first] = 0
    with torch.no_grad():
        acts = without @ c.dictionary.write + c.dictionary.offset + error
        again = c.dictionary.encode(acts.reshape(-1, CHANNELS)).view_as(latents)
    assert not torch.allclose(again, without)
    ablation = Ablation(c.model, target_of(c.model, c.target), [c.space], open_images(c.images), baselines.Zero())
    with torch.no_grad():
        torch.testing.assert_close(ablation.respond_without({c.space: {first}}), c.respond(without, error))


def test_latents_of_two_layers_are_those_of_the_run() -> None:
    """The latents of the later layer are of what the ablated earlier one gives it."""
    network = nets.sequential(
        nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU(), nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1), nn.ReLU(),
        nn.Conv2d(CHANNELS, 4, 3, padding=1),
    )  # fmt: skip
    model, images = nets.wrap(network, SIZE), nets.pictures(5, SIZE)
    dictionaries = {layer: sae.build(sae.TopK(latents=LATENTS, k=4, seed=i), CHANNELS) for i, layer in enumerate("13")}
    for layer, dictionary in dictionaries.items():
        model.attach(layer, "p", dictionary)
    kept = {"1~p": {0, 3, LATENTS}, "3~p": {1, 2, 5}}
    ablation = Ablation(model, target_of(model, "4:1"), ["3~p", "1~p"], open_images(images), baselines.Mean())
    assert ablation.layers == ["1~p", "3~p"]

    def split(layer: str, acts: Tensor) -> tuple[Tensor, Tensor]:
        rows = acts.movedim(1, -1)
        latents = dictionaries[layer].encode(rows.reshape(-1, CHANNELS)).view(*rows.shape[:-1], LATENTS)
        return latents, rows - dictionaries[layer].decode(latents.reshape(-1, LATENTS)).view(rows.shape)

    with torch.no_grad():
        natural = circuits.capture(model, images, ["1", "3"])
        x = natural["1"]
        for layer, module in (("1", network[2:4]), ("3", network[4:])):
            means = [part.mean(dim=(0, 1, 2)) for part in split(layer, natural[layer])]
            (latents, error), units = split(layer, x), kept[f"{layer}~p"]
            mixed = torch.stack([latents[..., m] if m in units else means[0][m].expand(latents.shape[:-1])
                                 for m in range(LATENTS)], dim=-1)  # fmt: skip
            acts = mixed @ dictionaries[layer].write + dictionaries[layer].offset
            x = module((acts + (error if LATENTS in units else means[1])).movedim(-1, 1))
    torch.testing.assert_close(ablation.respond(kept), x[:, 1], atol=1e-5, rtol=1e-5)
    weights = {name: ablation._mask(name, units).float() for name, units in kept.items()}
    batch, _ = ablation.batch(0)
    torch.testing.assert_close(ablation.mixed(batch, weights).detach(), x[:, 1], atol=1e-5, rtol=1e-5)
    small = circuits.smallest(model, "4:1", images=images, layers=["1~p", "3~p"], keep=0.8, steps=4)
    assert small.n_units == 2 * UNITS and small.found_share >= 0.8
    assert all(p.grad is None for d in dictionaries.values() for p in d.parameters())


def test_rankings_of_latents_are_the_same_again_and_stored(tmp_path: Any) -> None:
    c = convolution()
    first, again = (circuits.rank(c.model, c.target, method="mask", steps=4, **c.options("mean")) for _ in range(2))
    assert first == again and np.array_equal(first.scores, again.scores)
    assert first.describe()["units"][0].startswith("model/1~p:")
    assert f"model/{c.space}:error" in first.units


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("the pool of the mean of latents is not the mean of their pool", {"baseline": "mean"}),
        ("are of one layer, 1: name one of the two", {"layers": ["1", "1~p"], "baseline": "zero"}),
        ("edges are between channels", {"of": "edges", "baseline": "zero"}),
        ("has no basis 'q'; attached: 1~p", {"layers": "1~q"}),
        ("one unit of 1~p", {"layers": "1~p:2"}),
    ],
)
def test_what_means_nothing_for_latents_is_refused(message: str, options: dict[str, Any]) -> None:
    c = pooled()
    settings = {"images": c.images, "layers": c.space, **options}
    if "edges" in message:
        settings["layers"] = "1~p"
    with pytest.raises(CircuitsError, match=message):
        circuits.rank(c.model, c.target, method="mask" if "layers" in options else "gradient", **settings)
