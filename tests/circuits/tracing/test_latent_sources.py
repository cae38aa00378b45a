"""Latents as sources: what each of them contributes, and the error that their dictionary leaves over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import circuits
import sae
from circuits import plot
from circuits.errors import CircuitsError
from circuits.tracing.circuit import Circuit
from sae.superposition import geometry
from tests import nets

SIZE, LATENTS, CHANNELS = 12, 7, 6


def prepared(*, pool: bool = False) -> tuple[circuits.Model, Tensor, sae.SAE]:
    """A network whose layer "1" has a dictionary that reconstructs it badly: nothing was trained."""
    middle = [nn.MaxPool2d(2)] if pool else []
    network = nets.sequential(
        nn.Conv2d(3, CHANNELS, 3, padding=1), nn.ReLU(), *middle, nn.Conv2d(CHANNELS, 5, 3, padding=1), nn.ReLU()
    )
    model = nets.wrap(network, SIZE)
    return model, nets.pictures(6, SIZE), attached(model, sae.ReLU(latents=LATENTS))


def attached(model: circuits.Model, config: sae.SAEConfig) -> sae.SAE:
    """A dictionary `p` of layer "1" that reconstructs it badly: nothing was trained."""
    dictionary = sae.build(config, CHANNELS)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        dictionary.decoder_bias.copy_(torch.rand(CHANNELS, generator=generator))
        dictionary.encoder_bias.copy_(0.3 * torch.rand(config.latents, generator=generator))
        dictionary.mean.copy_(0.1 * torch.rand(CHANNELS, generator=generator))
        dictionary.scale.fill_(1.7)
    model.attach("1", "p", dictionary)
    return dictionary


def active_unit(model: circuits.Model, images: Tensor, layer: str) -> str:
    acts = circuits.capture(model, images, layer)[layer].amax(dim=(2, 3))
    return f"{layer}:{int(acts.amin(dim=0).argmax())}"


def test_latents_the_error_and_the_offset_are_those_of_plain_pytorch() -> None:
    model, images, dictionary = prepared()
    target = active_unit(model, images, "3")
    channel = int(target.rpartition(":")[2])
    circuit = circuits.trace(model, target, images=images, layers=["1~p"], width=LATENTS)
    conv = model.module[2]  # type: ignore[index]
    with torch.no_grad():
        acts = circuits.capture(model, images, ["1", "3"])
        peaks = acts["3"][:, channel].flatten(1).argmax(dim=1)
        rows = acts["1"].movedim(1, -1)
        latents = dictionary.encode(rows.reshape(-1, CHANNELS)).view(*rows.shape[:-1], LATENTS)
        whole = dictionary(rows.reshape(-1, CHANNELS)).view(rows.shape)

        def contributed(part: Tensor) -> float:
            maps = nn.functional.conv2d(part.movedim(-1, 1), conv.weight, None, padding=1)[:, channel]
            return float(maps.flatten(1).gather(1, peaks[:, None]).mean())

        expected = [contributed(latents[..., [m]] * dictionary.write[m]) for m in range(LATENTS)]
        error, offset = contributed(rows - whole), contributed(dictionary.offset.expand_as(rows))
    strengths = {circuits.Unit.parse(e.source).index: e.strength for e in circuit.edges}
    assert [strengths.get(m, 0.0) for m in range(LATENTS)] == pytest.approx(expected, abs=1e-5)
    (rest,) = circuit.rest
    assert rest.error == pytest.approx(error, abs=1e-5) and abs(error) > 1e-3
    assert rest.bias == pytest.approx(offset + float(conv.bias[channel].detach()), abs=1e-5)
    assert abs(rest.remainder) < 1e-5
    assert sum(strengths.values()) + rest.strength + error == pytest.approx(rest.total, abs=1e-5)


@pytest.mark.parametrize("by", ["weights", "attribution"])
def test_all_parts_add_up_to_the_trace_of_channels(by: str) -> None:
    model, images, _ = prepared()
    target = active_unit(model, images, "3")
    channels = circuits.trace(model, target, images=images, layers=["1"], by=by).rest[0]  # type: ignore[arg-type]
    circuit = circuits.trace(model, target, images=images, layers=["1~p"], by=by, width=3)  # type: ignore[arg-type]
    (rest,) = circuit.rest
    assert rest.error is not None
    listed = sum(e.strength for e in circuit.edges)
    assert listed + rest.strength + rest.error + rest.bias == pytest.approx(channels.total + channels.bias, abs=1e-5)
    assert rest.pre_activation == pytest.approx(channels.pre_activation, abs=1e-6)
    assert [node.layer for node in circuit.nodes[1:]] == ["1~p"] * 3
    assert all(edge.source.startswith("model/1~p:") for edge in circuit.edges)


@pytest.mark.parametrize("baseline", ["mean", "counterfactual"])
@pytest.mark.parametrize("by", ["weights", "attribution", "gradient", "integrated", "patching", "mask"])
def test_contributions_are_counted_from_the_baseline(by: str, baseline: str) -> None:
    """Before the target's own ReLU a convolution is linear: all ways give weights x (part - its baseline)."""
    model, images, dictionary = prepared()
    others = nets.pictures(len(images), SIZE, seed=5)
    target = active_unit(model, images, "3")
    channel, conv = int(target.rpartition(":")[2]), model.module[2]  # type: ignore[index]
    own = {"against": others} if baseline == "counterfactual" else {"baseline": baseline}
    circuit = circuits.trace(
        model,
        target,
        images=images,
        layers=["1~p"],
        width=LATENTS,
        by=by,
        n_positions=64,
        **own,  # type: ignore[arg-type]
    )

    def parts(pictures: Tensor) -> tuple[Tensor, Tensor]:
        rows = circuits.capture(model, pictures, "1")["1"].movedim(1, -1)
        latents = dictionary.encode(rows.reshape(-1, CHANNELS)).view(*rows.shape[:-1], LATENTS)
        return latents, rows - dictionary.decode(latents.reshape(-1, LATENTS)).view(rows.shape)

    with torch.no_grad():
        response = circuits.capture(model, images, "3")["3"][:, channel]
        peaks = response.flatten(1).argmax(dim=1)
        latents, error = parts(images)
        if baseline == "mean":
            base, base_error = (part.mean(dim=(0, 1, 2)).expand_as(part) for part in (latents, error))
        else:
            base, base_error = parts(others)

        def contributed(part: Tensor) -> float:
            maps = nn.functional.conv2d(part.movedim(-1, 1), conv.weight, None, padding=1)[:, channel]
            return float(maps.flatten(1).gather(1, peaks[:, None]).mean())

        expected = [contributed((latents - base)[..., [m]] * dictionary.write[m]) for m in range(LATENTS)]
        left = contributed(error - base_error)
        still = contributed(base @ dictionary.write + dictionary.offset + base_error) + float(conv.bias[channel])
    strengths = {circuits.Unit.parse(e.source).index: e.strength for e in circuit.edges}
    assert [strengths.get(m, 0.0) for m in range(LATENTS)] == pytest.approx(expected, abs=2e-5)
    (rest,) = circuit.rest
    assert rest.error == pytest.approx(left, abs=2e-5) and abs(left) > 1e-3
    if by != "attribution":
        assert rest.bias == pytest.approx(still, abs=2e-5) and abs(rest.remainder) < 2e-5
    assert rest.total == pytest.approx(sum(expected) + left, abs=5e-5)
    if by not in ("weights", "attribution"):  # as the kernels have it, which are exact here
        assert rest.folded is not None and rest.folded.total == pytest.approx(rest.total, abs=5e-5)
        assert rest.folded.bias == pytest.approx(rest.bias, abs=5e-5)
    assert rest.total + rest.bias + rest.remainder == pytest.approx(
        float(response.flatten(1).amax(dim=1).mean()), abs=5e-5
    )


def test_a_complete_basis_leaves_nothing_over() -> None:
    model, images, _ = prepared()
    model.attach("1", "all", nets.LinearBasis(torch.eye(CHANNELS)))
    target = active_unit(model, images, "3")
    channels = circuits.trace(model, target, images=images, layers=["1"], width=4, by="weights")
    latents = circuits.trace(model, target, images=images, layers=["1~all"], width=4)
    assert latents.rest[0].error == pytest.approx(0.0, abs=1e-6)
    assert [e.strength for e in latents.edges] == pytest.approx([e.strength for e in channels.edges])
    assert [e.source.replace("~all", "") for e in latents.edges] == [e.source for e in channels.edges]


def test_latents_are_traced_further_drawn_and_stored(tmp_path: Path) -> None:
    model, images, _ = prepared()
    stem = nets.sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *list(model.module.children()), seed=2)
    stem[2] = nn.Conv2d(4, CHANNELS, 3, padding=1)
    deep = nets.wrap(nets.randomized(stem), SIZE)
    deep.attach("3", "p", model.bases["1", "p"])
    target = active_unit(deep, images, "5")
    circuit = circuits.trace(deep, target, images=images, layers=["3~p", "1"], depth=2, width=2)
    assert circuit.layers == ("5", "3~p", "1") and {node.depth for node in circuit.nodes} == {0, 1, 2}
    assert all(node.examples for node in circuit.nodes)
    circuit.save(tmp_path / "circuit.json")
    assert Circuit.load(tmp_path / "circuit.json").rest == circuit.rest
    page = plot.trace_report(circuit, {}, "circuits trace", "import circuits")
    assert "left over by the latents" in page
    plot.circuit_graph(circuit, {})


@pytest.mark.parametrize(
    ("message", "options"),
    [
        ("not with by='ablation'", {"by": "ablation"}),
        ("not with through_bottlenecks", {"through_bottlenecks": True}),
        ("has no basis 'q'; attached: 1~p", {"layers": ["1~q"]}),
        ("not one of its units", {"layers": ["1~p:3"]}),
    ],
)
def test_what_is_not_worked_out_for_latents_is_refused(message: str, options: dict[str, object]) -> None:
    model, images, _ = prepared()
    settings = {"layers": ["1~p"], **options}
    with pytest.raises(CircuitsError, match=message):
        circuits.trace(model, active_unit(model, images, "3"), images=images, **settings)  # type: ignore[arg-type]


def test_behind_a_pool_latents_are_traced_by_attribution() -> None:
    model, images, _ = prepared(pool=True)
    target = active_unit(model, images, "4")
    with pytest.raises(CircuitsError, match="after a pool, but latents are of 1; trace with by='attribution'"):
        circuits.trace(model, target, images=images, layers=["1~p"])
    circuit = circuits.trace(model, target, images=images, layers=["1~p"], by="attribution")
    channels = circuits.trace(model, target, images=images, layers=["1"], by="attribution")
    rest, whole = circuit.rest[0], channels.rest[0]
    assert rest.total + rest.bias == pytest.approx(whole.total, abs=1e-5)


def test_a_pursuit_is_attributed_as_it_runs_and_has_no_weights_into_it() -> None:
    model, images, _ = prepared()
    dictionary = sae.build(sae.MatchingPursuit(latents=12, k=4), 5)
    with torch.no_grad():
        dictionary.decoder_bias.copy_(torch.linspace(-0.1, 0.1, 5))
    model.attach("3", "mp", dictionary)
    rows, conv = dictionary.decoder.detach(), model.module[2]  # type: ignore[index]

    def textbook(acts: Tensor) -> Tensor:
        """Latents of a position of layer "3", step by step, with their gradient."""
        residual, latents = acts - dictionary.decoder_bias, torch.zeros(12)
        for _ in range(4):
            j = int((rows @ residual).argmax())
            value = (rows[j] @ residual).relu()
            latents = latents + value * torch.eye(12)[j]
            residual = residual - value * rows[j]
        return latents

    acts = circuits.capture(model, images[:1], ["1", "3"])
    y, x = divmod(int(acts["3"][0].norm(dim=0).argmax()), acts["3"].shape[3])
    latents = textbook(acts["3"][0, :, y, x]).detach()
    # the last one that was chosen: what it reads is what three others have left
    latent = int(torch.where(latents > 1e-6, latents, torch.inf).argmin())
    leaf = acts["1"].clone().requires_grad_(True)
    textbook(conv(leaf).relu()[0, :, y, x])[latent].backward()
    target = f"3~mp:{latent}"
    result = circuits.attribute(model, images[:1], source="1", target=target, at=(y, x))
    assert float(result.response[0]) == pytest.approx(float(latents[latent]), rel=1e-4)
    assert leaf.grad is not None
    torch.testing.assert_close(result.values[0], (leaf * leaf.grad)[0].detach(), rtol=1e-4, atol=1e-6)
    assert circuits.trace(model, target, images=images, layers=["1"]).edges
    weights = {"source": "1", "target": target}
    for refused, advice in (
        (lambda: circuits.expanded_weights(model, **weights), "circuits.attribute"),
        (lambda: circuits.attribute(model, images, **weights, method="weight*act"), "circuits.attribute"),
        (lambda: circuits.trace(model, target, images=images, layers=["1"], by="weights"), "by='attribution'"),
        (lambda: geometry(dictionary), "geometry.sae.write"),
    ):
        with pytest.raises(CircuitsError, match=f"others have left.*{advice}"):
            refused()
    assert circuits.trace(model, target, images=images, layers=["1"], by="attribution").edges
    assert geometry(dictionary.write).dimensions == 5
