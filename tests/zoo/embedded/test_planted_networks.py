"""The planted networks compute their programs, by their known edges and by no others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open

from tools.planted.train import train
from zoo.errors import CircuitsError
from zoo.planted import SEEDS, planted
from zoo.planted.networks import WEIGHTS, agreement, from_other, interchanged
from zoo.planted.program import Gate, Program, program


def test_gates_and_outputs_by_hand() -> None:
    gates = (Gate("and", (0, 1)), Gate("and not", (2, 0)), Gate("copy", (3,)))
    by_hand = Program(
        np.zeros((4, 3, 3, 3), np.float32), (gates, (Gate("and", (1, 2)), Gate("copy", (0,)))), ((0,), (0, 1))
    )
    marks = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 1, 1, 0], [1, 1, 1, 1]], dtype=bool)
    assert by_hand.run(marks).tolist() == [[False, True], [True, True], [False, False], [False, True]]
    # with mark 0 of the fourth image (on) carried to the second gate: "and not" goes off in the second image
    swapped: list[set[tuple[int, int]]] = [{(1, 0)}, set(), set()]
    assert by_hand.run(marks[1:2], marks[3:4], swapped).tolist() == [[False, False]]
    assert by_hand.circuit == [[(1, 2), (1, 0), (2, 3)], [(0, 1), (0, 2)], [(0, 0)]]


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_network_agrees_with_its_program_whatever_other_edges_carry(seed: int) -> None:
    network = planted(seed)
    assert network.trained == (seed >= 10)
    assert min(agreement(network, 1000, seed=7).values()) >= 0.99
    images, _ = network.program.draw(200, seed=50)
    others, _ = network.program.draw(200, seed=51)
    nothing: list[set[tuple[int, int]]] = [set() for _ in network.program.connections]
    masks = from_other(network, nothing)
    own = interchanged(network.module, images, others, [torch.zeros_like(mask) for mask in masks])
    torch.testing.assert_close(own, network.module(images))  # with no edge interchanged it is the network itself


def test_trained_networks_have_no_edge_of_weight_zero_and_their_file_is_small() -> None:
    assert WEIGHTS.stat().st_size <= 300_000
    for seed in range(10, SEEDS):
        assert all((reader.weight != 0).float().mean() > 0.99 for reader in planted(seed).module.readers)
    with safe_open(WEIGHTS, "pt") as file:
        assert min(float(file.metadata()[str(seed)]) for seed in range(10, SEEDS)) >= 0.99


def test_the_same_seed_gives_the_same_program_images_and_training() -> None:
    first, second = program(4), program(4)
    assert first.layers == second.layers and first.outputs == second.outputs
    assert torch.equal(first.draw(3, 1)[0], second.draw(3, 1)[0])
    states = [train(12, steps=3).module.state_dict() for _ in range(2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_network_that_is_none_is_refused() -> None:
    with pytest.raises(CircuitsError, match="seed"):
        planted(SEEDS)
