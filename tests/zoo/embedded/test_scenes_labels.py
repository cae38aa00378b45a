"""The network of scenes that was trained on labels alone: small, right on held-out scenes, and of labels only."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from safetensors import safe_open

import circuits
from tools.scenes import evaluate
from tools.scenes.train import make_pool
from tools.scenes.train_labels import train
from zoo.scenes.generate import HELD_OUT_SEED, dataset
from zoo.scenes.network import LABELS_WEIGHTS


def test_its_file_is_small_and_says_how_it_was_made() -> None:
    assert LABELS_WEIGHTS.stat().st_size < 4 * 2**20
    with safe_open(LABELS_WEIGHTS, framework="pt") as file:
        metadata = file.metadata()
    assert float(metadata["accuracy"]) >= 0.97 and "part_channels" not in metadata


def test_it_is_right_on_held_out_scenes() -> None:
    model = circuits.load("scenes-labels", device="cpu")
    assert evaluate.accuracy(evaluate.run(model.module, dataset(260, HELD_OUT_SEED))) >= 0.97


def test_it_is_trained_on_labels_and_on_nothing_else() -> None:
    pool = make_pool(40, seed=1)
    other = replace(pool, parts=np.zeros_like(pool.parts))
    states = [train(p, steps=2, batch_size=8, progress=False).state_dict() for p in (pool, other)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    wrong = replace(pool, labels=pool.labels[::-1].copy())
    assert any(
        not torch.equal(v, states[0][k])
        for k, v in train(wrong, steps=2, batch_size=8, progress=False).state_dict().items()
    )
