"""A sweep is the whole grid in a stated order, its names tell its runs apart, and its table says what came of it."""

from __future__ import annotations

import json
import re

import pytest
import torch

import sae
from sae.evaluation.sweep_table import summary
from sae.training.sweeps import parse, sweep
from tests.sae.planted import ARCHITECTURES, features, name_of, sparse_sums

BASE = sae.TopK(latents=64, k=4, aux_coefficient=0.5)


def test_a_sweep_is_the_whole_grid_and_the_last_setting_changes_fastest() -> None:
    configs = sweep(BASE, k=[16, 32], latents=[2048, 4096], seed=[0, 1])
    assert [(c.k, c.latents, c.seed) for c in configs] == [
        (k, m, s) for k in (16, 32) for m in (2048, 4096) for s in (0, 1)
    ]  # type: ignore[attr-defined]
    assert all(isinstance(c, sae.TopK) and c.aux_coefficient == 0.5 for c in configs)
    assert configs == sweep(BASE, **parse(["k=16,32", "latents=2048,4096", "seed=0,1"], sae.TopK))
    assert sweep(BASE) == [sae.TopK(latents=64, k=4, aux_coefficient=0.5, name="topk-64-k4")]


def test_names_tell_runs_apart_and_are_short() -> None:
    assert [c.name for c in sweep(BASE, seed=[0, 1], k=[2, 8])] == [
        "topk-64-k2-seed0", "topk-64-k8-seed0", "topk-64-k2-seed1", "topk-64-k8-seed1"
    ]  # fmt: skip
    assert [c.name for c in sweep(BASE, k=[2, 8], seed=[3])] == ["topk-64-k2", "topk-64-k8"]
    assert [c.name for c in sweep(BASE, lr=[1e-3, None])] == ["topk-64-k4-lr0.001", "topk-64-k4-lrnone"]
    named = sae.TopK(latents=64, k=4, name="mine")
    assert [c.name for c in sweep(named, k=[2, 8], seed=[0, 1])][:2] == ["mine-k2-seed0", "mine-k2-seed1"]
    # a title rounds to six digits; a name does not
    close = [c.name for c in sweep(sae.ReLU(latents=8), l1=[1.0000001, 1.0000002])]
    assert len(set(close)) == 2
    groups = sweep(sae.Matryoshka(latents=8, k=2), groups=[(2, 6), (4, 4)])
    assert [c.name for c in groups] == ["matryoshka-8-k2-groups2+6", "matryoshka-8-k2-groups4+4"]
    every = sweep(BASE, k=[1, 2, 3], revive=["auxk", "resample", "none"], aux_k=[None, 4], lr=[1e-4, 3e-4])
    assert len({c.name for c in every}) == 36 and max(len(c.name or "") for c in every) < 60
    assert all(re.fullmatch(r"[\w.+-]+", c.name or "") for c in every)


@pytest.mark.parametrize("config", ARCHITECTURES, ids=name_of)
def test_every_architecture_can_be_swept(config: sae.SAEConfig) -> None:
    configs = sweep(config, lr=[1e-3, 2e-3], seed=[0, 1])
    assert len({c.name for c in configs}) == 4 and {type(c) for c in configs} == {type(config)}


def test_what_cannot_be_swept_says_why() -> None:
    for call, message in (
        (
            lambda: sweep(BASE, latens=[1]),
            r"no setting 'latens' in TopK to sweep over. Nearest: latents, written. There are",
        ),
        (lambda: sweep(BASE, l1=[1.0]), "no setting 'l1' in TopK"),
        (lambda: sweep(BASE, name=["a"]), "names are made by the sweep"),
        (lambda: sweep(BASE, k=[]), "k: a sweep needs at least one value"),
        (lambda: sweep(BASE, k=3), r"k=3: give the values as a list, k=\[...\]"),
        (lambda: sweep(BASE, revive="auxk"), "give the values as a list"),
        (lambda: sweep(BASE, k=[2, 4, 2]), "k has 2 twice"),
        (lambda: sweep(BASE, k=[4, 32], latents=[16]), "the sweep's k=32, latents=16 is no configuration: k=32 is"),
        (lambda: sweep(BASE, k=[1.5]), "k=1.5 must be a whole number"),
        (lambda: sweep("topk", k=[1]), "got str"),
    ):
        with pytest.raises(sae.SAEError, match=message):
            call()  # type: ignore[no-untyped-call]


def test_a_command_line_is_read_by_the_types_of_the_settings() -> None:
    found = parse(["k=16,32", "aux-k=none,8", "lr=1e-3, 2e-3", "revive=auxk,none", "aux_coefficient=1"], BASE)
    assert found == {
        "k": [16, 32], "aux_k": [None, 8], "lr": [1e-3, 2e-3], "revive": ["auxk", "none"], "aux_coefficient": [1.0]
    }  # fmt: skip
    assert isinstance(found["aux_coefficient"][0], float) and isinstance(found["k"][0], int)
    assert parse(["groups=4+8+12,none"]) == {"groups": [(4, 8, 12), None]}
    assert parse(["penalty=tanh,l0", "l1=3"]) == {"penalty": ["tanh", "l0"], "l1": [3.0]}
    assert parse([]) == {}


def test_a_command_line_that_makes_no_sense_says_why() -> None:
    for texts, message in (
        (["k"], "'k' is no sweep: write setting=value,value, say k=16,32"),
        (["k="], "is no sweep"),
        (["=3"], "is no sweep"),
        (["k=16,,32"], "k='': k is a whole number"),
        (["k=1.5"], "k='1.5': k is a whole number"),
        (["lr=fast"], "lr='fast': lr is a number or none"),
        (["revive=ghosts"], "revive='ghosts': revive is auxk or resample or none"),
        (["groups=4+x"], "groups is a whole number"),
        (["k=1", "k=2"], "k is swept twice"),
        (["k=1,1"], "k has 1 twice"),
        (["latens=3"], "Nearest: latents"),
        (["name=a"], "names are made by the sweep"),
    ):
        with pytest.raises(sae.SAEError, match=message):
            parse(texts)
    with pytest.raises(sae.SAEError, match="no setting 'l1' in TopK"):
        parse(["l1=3"], BASE)


def test_a_sweep_trains_on_one_stream_and_its_table_is_json() -> None:
    x = sparse_sums(features(n=20, d=10), 3000)
    configs = [*sweep(sae.TopK(latents=24, k=3), k=[1, 4], seed=[0, 1]), sae.ReLU(latents=24, l1=1e5, name="hopeless")]
    runs = sae.train(x[:2000], configs, steps=160, batch_size=64, lr=1e-2, report_every=10)
    rows = summary(runs)
    assert json.loads(json.dumps(rows)) == rows and [r["name"] for r in rows] == [c.name for c in configs]
    assert [(r.get("k"), r["seed"]) for r in rows] == [(1, 0), (1, 1), (4, 0), (4, 1), (None, 0)]
    for row, run in zip(rows, runs, strict=True):
        last = run.reports[-1]
        assert (row["fvu"], row["l0"], row["dead"]) == (last.fvu, last.l0, last.dead)
        assert (row["steps"], row["samples"], row["latents"]) == (run.steps, run.samples, 24)
        assert "channels_fvu" not in row and "aux_coefficient" not in row
    assert rows[-1]["status"].startswith("collapsed") and rows[-1]["architecture"] == "relu"

    held_out = summary(runs, x[2000:])
    for row, run in zip(held_out, runs, strict=True):
        found = sae.metrics.reconstruction(run.sae, x[2000:])
        assert (row["fvu"], row["l0"], row["dead"], row["measured"]) == (found.fvu, found.l0, found.dead, 1000)
        assert row["channels_fvu"] == found.baselines["channels"].fvu
        assert row["random_fvu"] == found.baselines["random"].fvu
    assert held_out[2]["fvu"] < held_out[0]["fvu"] < held_out[0]["random_fvu"]


def test_numbers_that_are_not_finite_are_none_in_a_table() -> None:
    x = sparse_sums(features(n=20, d=10), 500)
    run = sae.train(x, sae.TopK(latents=24, k=3), steps=2, batch_size=64)[0]
    with torch.no_grad():
        run.sae.decoder[0, 0] = torch.nan
    row = summary([run], x)[0]
    assert row["fvu"] is None and row["random_fvu"] is None and "NaN" not in json.dumps(row)
    assert sae.summary([]) == []
