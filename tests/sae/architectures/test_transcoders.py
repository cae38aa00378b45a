"""Transcoders: every architecture with another target than its input, and with a linear skip."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

import sae
from sae.architectures.base import TrainingState
from sae.architectures.dead_latents import default_aux_k
from sae.evaluation import metrics
from tests.sae.planted import TRANSCODERS, features, name_of

D, D_OUT = 12, 7
KINDS = ("transcoder", "skip-transcoder")


def of_kind(config: sae.SAEConfig, kind: str = "skip-transcoder") -> sae.SAEConfig:
    return dataclasses.replace(config, kind=kind)  # type: ignore[arg-type]


def drawn(config: sae.SAEConfig, seed: int = 0, d_out: int = D_OUT) -> sae.SAE:
    """A transcoder with every parameter and buffer at random, not equal by symmetry."""
    model = sae.build(config, D, d_out)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in [*model.named_parameters(), *model.named_buffers()]:
            noise = torch.randn(value.shape, generator=generator)
            if name == "threshold":
                value.copy_(0.2 + 0.2 * noise.abs())
            elif name.endswith("scale") and value.ndim == 0:
                value.fill_(1.7 if name == "scale" else 0.6)
            else:
                value.copy_(F.normalize(noise) if value.ndim > 1 else 0.3 * noise)
    return model.eval()


def pairs(n: int = 400, seed: int = 3) -> tuple[Tensor, Tensor]:
    """Inputs far from zero, and what a small ReLU network makes of them."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, D, generator=generator) + 4.0
    first, second = torch.randn(D, 20, generator=generator), torch.randn(20, D_OUT, generator=generator)
    return x, torch.relu((x - 4.0) @ first) @ second / 4 - 2.0


@pytest.mark.parametrize("config", TRANSCODERS, ids=name_of)
def test_raw_units_are_those_of_the_normalized_parameters_and_stay_when_folded(config: sae.SAEConfig) -> None:
    model, (x, _) = drawn(of_kind(config)), pairs(50)
    with torch.no_grad():
        normalized = (x - model.mean) * model.scale
        latents = model.activate(normalized @ model.encoder.T + model.encoder_bias)
        out = latents @ model.decoder + model.decoder_bias + normalized @ model.skip.T  # type: ignore[union-attr]
        by_hand = out / model.target_scale + model.target_mean  # type: ignore[operator]
        torch.testing.assert_close(model.encode(x), latents, rtol=1e-4, atol=1e-4)
        for again in (model(x), model.reconstruct(x)[0], model.folded()(x)):
            torch.testing.assert_close(again, by_hand, rtol=1e-4, atol=1e-4)
        assert torch.equal(model.folded().decode(latents), model.decode(latents)) or model.skip is not None
        assert torch.equal(model.folded().write, model.write) and torch.equal(model.folded().read, model.read)
        assert not bool(model.folded().center.any())
        torch.testing.assert_close(model.folded().folded()(x), model.folded()(x), rtol=0, atol=0)
    assert model.write.shape == (24, D_OUT) and model.read.shape == (24, D)
    assert sae.build(of_kind(config, "transcoder"), D, D_OUT).linear_part(x) is None


@pytest.mark.parametrize("kind", [sae.TopK, sae.BatchTopK])
def test_gradients_of_the_sparse_kernels_are_those_of_dense_autograd(kind: type[sae.TopK]) -> None:
    model = drawn(kind(latents=24, k=3, kind="skip-transcoder", aux_k=2)).double().train()
    x, y = (value.double() for value in pairs(40))
    dead = torch.tensor([1, 4, 9, 17])
    losses = model.losses(x, model.remaining(x, y), TrainingState(dead=dead))
    losses.total.backward()
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    pre = x @ model.encoder.T + model.encoder_bias
    if kind is sae.TopK:
        active = torch.zeros_like(pre).scatter(1, pre.topk(3, dim=1).indices, 1.0)
    else:
        active = torch.zeros_like(pre).flatten().scatter(0, pre.flatten().topk(3 * 40).indices, 1.0).view_as(pre)
    residual = y - x @ model.skip.T - (pre.relu() * active) @ model.decoder - model.decoder_bias  # type: ignore[union-attr]
    aside = pre[:, dead].relu()
    aside = aside * torch.zeros_like(aside).scatter(1, aside.topk(2, dim=1).indices, 1.0)
    rest = residual.detach()
    auxk = (rest - aside @ model.decoder[dead]).square().mean() / (rest - rest.mean(dim=0)).square().mean()
    total = residual.square().mean() + auxk / 32
    total.backward()  # type: ignore[no-untyped-call]
    assert losses.total.item() == pytest.approx(total.item(), rel=1e-10)
    assert set(found) == {"encoder", "encoder_bias", "decoder", "decoder_bias", "skip"}
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(found[name], parameter.grad, rtol=1e-9, atol=1e-12)
    assert default_aux_k(D_OUT) == 2 != default_aux_k(D)  # of the target's width


def test_with_its_input_as_target_a_transcoder_takes_the_steps_of_an_sae() -> None:
    x, _ = pairs()
    plain = drawn(sae.TopK(latents=24, k=3, kind="transcoder"), d_out=D).train()
    same = sae.build(sae.TopK(latents=24, k=3), D).train()
    with torch.no_grad():
        for name in ("encoder", "decoder", "decoder_bias"):
            getattr(same, name).copy_(getattr(plain, name))
        same.encoder_bias.copy_(plain.encoder_bias + plain.encoder @ plain.decoder_bias)
    ours, theirs = plain.losses(x, x), same.losses(x, x)
    torch.testing.assert_close(ours.error, theirs.error, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", TRANSCODERS, ids=name_of)
def test_every_architecture_learns_its_target_saves_it_and_resumes_bit_for_bit(
    config: sae.SAEConfig, tmp_path: Path
) -> None:
    x, y = pairs()
    settings: dict[str, Any] = {"steps": 40, "lr": 1e-2, "dead_after": 300, "report_every": 10}
    config = of_kind(config)
    whole = sae.train(sae.TensorStream(x, 100, target=y), config, **settings)[0]
    assert whole.reports[-1].fvu < 0.7 * whole.reports[0].fvu
    file = tmp_path / "checkpoint"

    def stop(report: sae.Report) -> None:
        if report.step == 20:
            raise sae.TrainingError("enough")

    with pytest.raises(sae.TrainingError, match="enough"):
        sae.train(
            sae.TensorStream(x, 100, target=y), config, checkpoint=file, checkpoint_every=20, callbacks=[stop],
            **settings,
        )  # fmt: skip
    rest = sae.train(sae.TensorStream(x, 100, target=y), config, checkpoint=file, **settings)[0]
    for name, value in whole.sae.state_dict().items():
        assert torch.equal(value, rest.sae.state_dict()[name]), name
    quality = metrics.fvu(y, whole.sae(x))
    assert quality == pytest.approx(metrics.fvu(y, whole.sae.folded()(x)), rel=1e-3)
    assert "-skip-transcoder-" in whole.name and whole.config.to_dict()["kind"] == "skip-transcoder"


def test_a_transcoder_of_a_linear_map_is_that_map() -> None:
    x, _ = pairs(2000)
    matrix = torch.randn(D, D_OUT, generator=torch.Generator().manual_seed(1))
    y = x @ matrix + 5.0
    settings: dict[str, Any] = {"steps": 400, "lr": 1e-2, "decay": 0.5, "batch_size": 200}
    skip, without = sae.train(
        sae.TensorStream(x, 200, target=y),
        [sae.TopK(latents=16, k=1, kind=kind, lr=1e-2) for kind in ("skip-transcoder", "transcoder")],
        **settings,
    )
    new = pairs(500, seed=9)[0]
    truth = new @ matrix + 5.0
    assert metrics.fvu(truth, skip.sae(new)) < 1e-3 < 0.3 < metrics.fvu(truth, without.sae(new))
    # by hand: both sides of each of the 7 singular directions, of which 7 are active, are the map
    left, sizes, right = torch.linalg.svd(matrix, full_matrices=False)
    exact = sae.build(sae.TopK(latents=14, k=7, kind="transcoder"), D, D_OUT)
    with torch.no_grad():
        exact.encoder.copy_(torch.cat([left.T, -left.T]))
        exact.decoder.copy_(torch.cat([right, -right]) * sizes.repeat(2)[:, None])
        exact.decoder_bias.fill_(5.0)
    torch.testing.assert_close(exact(new), truth, rtol=1e-4, atol=1e-4)


def test_planted_features_are_read_in_the_input_and_written_in_the_target() -> None:
    read, write = features(0, 16, 32), features(1, 16, 24)
    generator = torch.Generator().manual_seed(0)
    codes = (torch.rand(4000, 16, generator=generator) < 0.1) * (0.5 + torch.rand(4000, 16, generator=generator))
    stream = sae.TensorStream(codes @ read + 3.0, 500, target=codes @ write - 1.0)
    model = sae.train(stream, sae.TopK(latents=32, k=2, kind="transcoder"), steps=500, lr=3e-3)[0].sae
    assert metrics.mmcs(model.write, write) > 0.95 > 0.6 > metrics.random_mmcs(32, write)
    matched = (F.normalize(model.write) @ write.T).argmax(dim=0)  # the latent of each feature
    effect = read @ model.read[matched].T  # what each feature adds to each of these latents
    assert bool((effect.argmax(dim=0) == torch.arange(16)).all())


def test_what_is_no_transcoder_or_has_no_targets_is_refused() -> None:
    x, y = pairs(50)
    with pytest.raises(sae.SAEError, match=r"pairs of 12 and 7 channels.*say kind='transcoder'"):
        sae.train(sae.TensorStream(x, 10, target=y), sae.TopK(latents=8, k=2), steps=1)
    with pytest.raises(sae.SAEError, match="no targets: give sae.TensorStream"):
        sae.train(x, sae.TopK(latents=8, k=2, kind="transcoder"), steps=1)
    with pytest.raises(sae.SAEError, match="50 vectors have 49 targets"):
        sae.TensorStream(x, target=y[1:])
    with pytest.raises(sae.SAEError, match="reconstructs what it reads, 12 wide, not 7"):
        sae.build(sae.TopK(latents=8, k=2), D, D_OUT)
    with pytest.raises(sae.SAEError, match="resampling writes what it reads"):
        sae.ReLU(latents=8, kind="transcoder", revive="resample")
    nested = sae.build(sae.Matryoshka(latents=24, k=3, kind="transcoder"), D, D_OUT)
    with pytest.raises(sae.SAEError, match="give target="):
        nested.prefix_errors(x)  # type: ignore[operator]


# -- files --------------------------------------------------------------------------------------------


def by_hand(tensors: dict[str, Tensor], x: Tensor, threshold: str = "threshold") -> Tensor:
    """What the source of SAELens and of circuit-tracer computes, in plain PyTorch, of encoders `(m, d)`."""
    pre = x @ tensors["W_enc"].T + tensors["b_enc"]
    latents = pre.relu() * (pre > tensors[threshold]) if threshold in tensors else pre.relu()
    out = latents @ tensors["W_dec"] + tensors["b_dec"]
    return out + x @ tensors["W_skip"].T if "W_skip" in tensors else out


WRITTEN = {
    "relu": "transcoder", "jumprelu": "jumprelu_transcoder", "batchtopk": "jumprelu_transcoder",
    "matryoshka": "jumprelu_transcoder", "p_annealing": "transcoder",
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", TRANSCODERS, ids=name_of)
def test_files_hold_the_transcoder_in_the_names_of_saelens_and_circuit_tracer(
    config: sae.SAEConfig, kind: str, tmp_path: Path
) -> None:
    model, (x, _) = drawn(of_kind(config, kind)), pairs(60)
    loaded = sae.load(sae.save(tmp_path / "native", model))
    folded = model.folded()
    assert loaded.config == model.config and torch.equal(loaded(x), folded(x))
    assert torch.equal(loaded.encode(x), folded.encode(x)) and loaded.metadata["output"]["scale"] == pytest.approx(0.6)
    about = json.loads((tmp_path / "native" / "cfg.json").read_text())
    name = WRITTEN.get(config.architecture, "custom")
    if kind == "skip-transcoder" and name != "custom":
        name = name.replace("transcoder", "skip_transcoder")
    assert about["architecture"] == name and about["apply_b_dec_to_input"] is False
    assert (about["d_in"], about["d_sae"], about["d_out"]) == (D, 24, D_OUT)
    if name == "custom":
        with pytest.raises(sae.FormatError, match="transcoders of ReLU and JumpReLU"):
            sae.save(tmp_path / "tracer", model, format="circuit_tracer")
        return
    tensors = load_file(tmp_path / "native" / "sae_weights.safetensors")
    torch.testing.assert_close(by_hand({**tensors, "W_enc": tensors["W_enc"].T}, x), folded(x), rtol=1e-4, atol=1e-4)
    del about["vision_circuits"]  # as SAELens writes it
    (tmp_path / "native" / "cfg.json").write_text(json.dumps(about))
    torch.testing.assert_close(sae.load(tmp_path / "native")(x), folded(x), rtol=0, atol=0)
    model.metadata |= {"layer": "layers.3.mlp_in..layers.3.mlp", "model": "tales"}
    sae.save(tmp_path / "tracer", model, format="circuit_tracer")
    tensors = load_file(tmp_path / "tracer" / "layer_3.safetensors")
    torch.testing.assert_close(by_hand(tensors, x, "activation_function.threshold"), folded(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae.load(tmp_path / "tracer")(x), folded(x), rtol=0, atol=0)
    hooks = json.loads((tmp_path / "tracer" / "config.yaml").read_text())
    assert (hooks["feature_input_hook"], hooks["feature_output_hook"]) == ("mlp.hook_in", "mlp.hook_out")


def test_files_that_would_mean_something_else_are_refused(tmp_path: Path) -> None:
    model = drawn(sae.ReLU(latents=24, kind="skip-transcoder"))
    with pytest.raises(sae.FormatError, match="dictionary_learning has no place for transcoders; save as"):
        sae.save(tmp_path / "a", model, format="dictionary_learning")
    folder = sae.save(tmp_path / "b", model)
    about = json.loads((folder / "cfg.json").read_text())
    del about["vision_circuits"]
    for change, message in (
        ({"architecture": "transcoder"}, "W_skip unknown"),
        ({"d_out": 9}, "says d_in=12, d_sae=24, d_out=9"),
        ({"apply_b_dec_to_input": True}, "b_dec of a transcoder belongs to what it writes"),
        ({"architecture": "standard"}, "unknown|must be"),
    ):
        (folder / "cfg.json").write_text(json.dumps({**about, **change}))
        with pytest.raises(sae.FormatError, match=message):
            sae.load(folder)
    two = sae.save(tmp_path / "c", model, format="circuit_tracer")
    (two / "layer_1.safetensors").write_bytes((two / "layer_0.safetensors").read_bytes())
    with pytest.raises(sae.FormatError, match="transcoders of 2 layers: name one file"):
        sae.load(two)
    assert sae.load(two / "layer_1.safetensors").metadata["source"]["layer"] == 1
