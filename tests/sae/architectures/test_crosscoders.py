"""Crosscoders and cross-layer transcoders: several sources or targets of one dictionary."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sae
from sae.evaluation import metrics
from tests.sae.planted import ARCHITECTURES, features, name_of

CROSSCODERS = [config for config in ARCHITECTURES if ("kind", "crosscoder") not in config.refused]
WIDTHS = (64, 48)
SHARED, ONLY_A, ONLY_B = range(24), range(24, 32), range(32, 40)


def of_kind(config: sae.SAEConfig) -> sae.SAEConfig:
    return dataclasses.replace(config, kind="crosscoder")


def planted(n: int = 6000, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Vectors of two sources from 40 features, their codes, and the directions in each: 24 shared, 8 in one alone.

    The second source is 30 times as large, of another width, and far from zero.
    """
    generator = torch.Generator().manual_seed(seed)
    codes = (torch.rand(n, 40, generator=generator) < 0.06) * (0.5 + torch.rand(n, 40, generator=generator))
    first, second = features(1, 40, WIDTHS[0]), features(2, 40, WIDTHS[1])
    first[list(ONLY_B)], second[list(ONLY_A)] = 0.0, 0.0
    return codes @ first, 30 * (codes @ second) + 200, codes, first, second


def test_a_crosscoder_of_one_source_is_the_sae_to_the_bit() -> None:
    x = planted(600)[0] + 3
    for config in CROSSCODERS:
        plain = sae.train(x, config, steps=5, batch_size=100, lr=1e-2)[0]
        crossed = sae.train(sae.TensorStream([x], 100), of_kind(config), steps=5, lr=1e-2)[0]
        assert crossed.config.written == (64,) and crossed.config.kind == "crosscoder"
        for name, value in plain.sae.state_dict().items():
            other = crossed.sae.state_dict()[name]
            assert torch.equal(value, other) or (name == "scale" and bool((other == value).all())), (config, name)


@pytest.mark.parametrize(
    "config", [sae.BatchTopK(latents=48, k=3), sae.ReLU(latents=48, l1=3.0)], ids=lambda c: c.architecture
)
def test_planted_features_are_found_and_assigned_to_their_sources(config: sae.SAEConfig) -> None:
    a, b, codes, first, second = planted()
    stream = sae.TensorStream([a, b], 500)
    crosscoder = sae.train(stream, of_kind(config), steps=500, lr=1e-2)[0].sae
    lengths = crosscoder.part_lengths()
    share = lengths[0] / lengths.sum(dim=0)
    latents = crosscoder.encode(torch.cat([a, b], dim=1))
    similarity = torch.corrcoef(torch.cat([codes, latents], dim=1).T)[:40, 40:].nan_to_num()
    best = similarity.max(dim=1)
    assert float(best.values.median()) > 0.9, best.values
    in_a, in_b = crosscoder.write.split(WIDTHS, dim=1)
    cosines: list[float] = []
    for index in range(40):
        latent, found = int(best.indices[index]), float(best.values[index])
        if found < 0.9:
            continue
        side = float(share[latent])
        assert (side > 0.9) == (index in ONLY_A) and (side < 0.1) == (index in ONLY_B), (index, side)
        rows = ((in_a[latent], first[index]), (in_b[latent], second[index]))
        cosines += [float(F.cosine_similarity(row, truth, dim=0)) for row, truth in rows if bool(truth.any())]
    assert int((best.values > 0.9).sum()) >= 32
    assert sum(cosine > 0.9 for cosine in cosines) > 0.85 * len(cosines), cosines
    for part, source in zip(crosscoder(torch.cat([a, b], dim=1)).split(WIDTHS, dim=1), (a, b), strict=True):
        assert metrics.fvu(source, part) < 0.35  # no source dominates, however large


def test_the_price_of_a_latent_is_the_sum_of_the_lengths_of_its_parts() -> None:
    model = sae.build(sae.ReLU(latents=5, l1=2.0, kind="crosscoder", written=(3, 4)), 7)
    x = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.decoder.copy_(torch.randn(5, 7, generator=torch.Generator().manual_seed(1)))
    losses = model.losses(x, x)
    latents = torch.relu(x @ model.encoder.T)
    lengths = model.decoder[:, :3].square().sum(1).sqrt() + model.decoder[:, 3:].square().sum(1).sqrt()
    by_hand = 2.0 * (latents * lengths).sum() / x.numel() + (x - latents @ model.decoder).square().mean()
    torch.testing.assert_close(losses.total, by_hand)


def test_rows_keep_their_sum_of_lengths_and_each_source_its_own_scale() -> None:
    a, b, *_ = planted(800)
    for config in CROSSCODERS:
        model = sae.train(sae.TensorStream([a, b], 200), of_kind(config), steps=6, lr=1e-2)[0].sae
        if model.unit_decoder:
            torch.testing.assert_close(model.row_lengths(), torch.full((24,), 2**0.5))
        x = torch.cat([a, b], dim=1)
        scale = torch.cat([(part - part.mean(0)).square().mean().rsqrt().expand(part.shape[1]) for part in (a, b)])
        torch.testing.assert_close(model.scale, scale, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(model.folded()(x), model(x), rtol=0, atol=0)


def test_a_cross_layer_transcoder_writes_each_layer_by_its_own_rows() -> None:
    generator = torch.Generator().manual_seed(5)
    x = torch.relu(torch.randn(4000, 16, generator=generator)) + 1
    maps = [torch.randn(16, width, generator=generator) for width in (10, 6)]
    targets = [x @ maps[0], 50 * (x @ maps[1]) - 7]
    config = sae.TopK(latents=64, k=8, kind="skip-transcoder")
    model = sae.train(sae.TensorStream(x, 400, target=targets), config, steps=120, lr=3e-3)[0].sae
    assert model.written == (10, 6) and model.d_out == 16
    for part, target in zip(model(x).split(model.written, dim=1), targets, strict=True):
        assert metrics.fvu(target, part) < 0.02  # a linear map is its skip
    torch.testing.assert_close(model.folded()(x), model(x), rtol=1e-4, atol=2e-2)


@pytest.mark.parametrize("config", CROSSCODERS, ids=name_of)
def test_crosscoders_come_back_from_files_and_damaged_ones_are_refused(config: sae.SAEConfig, tmp_path: Path) -> None:
    a, b, *_ = planted(400)
    x = torch.cat([a, b], dim=1)
    run = sae.train(sae.TensorStream([a, b], 200), of_kind(config), steps=4)[0]
    sae.save(tmp_path / "c", run)
    again = sae.load(tmp_path / "c")
    assert again.config == run.config and again.written == WIDTHS
    assert torch.equal(again.encode(x), run.sae.encode(x)) and torch.equal(again(x), run.sae(x))
    with pytest.raises(sae.FormatError, match="no place for several sources"):
        sae.save(tmp_path / "other", run, format="dictionary_learning")
    about = json.loads((tmp_path / "c" / "cfg.json").read_text())
    key = next(k for k, v in about.items() if isinstance(v, dict) and "config" in v)
    for wrong in ([64, 49], [112, 0], [-1, 113], "112", [64.5, 47.5], [], 112, [[64], [48]]):
        about[key]["config"]["written"] = wrong
        (tmp_path / "c" / "cfg.json").write_text(json.dumps(about))
        with pytest.raises(sae.FormatError):
            sae.load(tmp_path / "c")


def test_a_training_that_was_interrupted_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    a, b, *_ = planted(600)
    pairs = {"x": a, "target": [b, 2 * b[:, :5]]}
    for name, kind, data in (("c", "crosscoder", {"x": [a, b]}), ("t", "skip-transcoder", pairs)):
        config = sae.BatchTopK(latents=24, k=3, kind=kind)  # type: ignore[arg-type]
        settings = {"steps": 12, "checkpoint_every": 4, "lr": 1e-2, "report_every": 4}
        whole = sae.train(sae.TensorStream(batch_size=100, **data), config, **settings)[0].sae  # type: ignore[arg-type]

        def stop(report: sae.Report) -> None:
            if report.step >= 8:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            sae.train(
                sae.TensorStream(batch_size=100, **data), config, checkpoint=tmp_path / name,
                callbacks=[stop], **settings,
            )  # type: ignore[arg-type]  # fmt: skip
        resumed = sae.train(
            sae.TensorStream(batch_size=100, **data), config, checkpoint=tmp_path / name, **settings
        )[0].sae  # type: ignore[arg-type]  # fmt: skip
        assert all(torch.equal(v, resumed.state_dict()[k]) for k, v in whole.state_dict().items())


def test_what_is_no_crosscoder_of_a_stream_is_refused() -> None:
    a, b, *_ = planted(50)
    both = sae.TensorStream([a, b], 10)
    with pytest.raises(sae.SAEError, match="say kind='crosscoder'"):
        sae.train(both, sae.TopK(latents=8, k=2), steps=1)
    with pytest.raises(sae.SAEError, match="the stream has one"):
        sae.train(a, sae.TopK(latents=8, k=2, kind="crosscoder"), steps=1)
    with pytest.raises(sae.SAEError, match="say kind='transcoder'"):
        sae.train(sae.TensorStream(a, target=b), sae.TopK(latents=8, k=2, kind="crosscoder"), steps=1)
    with pytest.raises(sae.SAEError, match="written=\\(1, 111\\)"):
        sae.train(both, sae.TopK(latents=8, k=2, kind="crosscoder", written=(1, 111)), steps=1)
    with pytest.raises(sae.SAEError, match="there are 50, 49"):
        sae.TensorStream([a, b[1:]])
    with pytest.raises(sae.SAEError, match="one scale|needs written"):
        sae.build(sae.TopK(latents=8, k=2, kind="crosscoder"), 112)
    assert sae.TensorStream(torch.randn(30, 2, 5)).written == (5, 5)
