"""The packaged network: that it is what its file says, and that training it again gives the same bits."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tools.scenes import evaluate, train
from zoo.networks.inceptionv1 import InceptionV1
from zoo.scenes import ADVERSARIAL, CLASSES, PARTS, adversarial, dataset, draw
from zoo.scenes.generate import HELD_OUT_SEED
from zoo.scenes.network import INPUT, OBJECT_LAYER, PART_LAYER, SPEC, WEIGHTS, build, centers, trunk


@pytest.fixture(scope="module")
def network() -> InceptionV1:
    module = build()
    module.load_state_dict(load_file(WEIGHTS))
    return module


@pytest.fixture(scope="module")
def batch(network: InceptionV1) -> evaluate.Batch:
    return evaluate.run(network, dataset(416, HELD_OUT_SEED + 100))


def test_the_packaged_weights_are_small_and_say_where_they_come_from() -> None:
    assert WEIGHTS.stat().st_size < 1_000_000
    with safe_open(WEIGHTS, "pt") as stored:
        about = stored.metadata()
    assert about["seed"].isdigit() and json.loads(about["classes"]) == list(CLASSES)
    judged = json.loads(about["benchmark"])
    assert judged["accuracy"] >= 0.97 and all(judged["passes"].values())


def test_the_packaged_network_reaches_its_accuracy_on_new_scenes(batch: evaluate.Batch) -> None:
    assert evaluate.accuracy(batch) >= 0.95


def test_the_packaged_network_does_not_take_wrong_arrangements_for_a_car(network: InceptionV1) -> None:
    scenes = [s for k, kind in enumerate(ADVERSARIAL) for s in adversarial(25, 700 + k, kind)]
    assert evaluate.called(network, scenes, "car") <= 0.1
    cars = [draw(seed, "car") for seed in range(60)]
    assert evaluate.called(network, cars, "car") >= 0.9


def test_the_car_unit_has_window_body_and_wheel_parents(network: InceptionV1, batch: evaluate.Batch) -> None:
    by_part = evaluate.part_auc(batch)
    scores = evaluate.image_auc(batch, OBJECT_LAYER, ["car"], [c for c in CLASSES if c != "car"])
    rows = batch.labels == CLASSES.index("car")
    unit = int(scores.argmax())
    given = evaluate.contributions(network, batch, PART_LAYER, OBJECT_LAYER, unit, rows)
    parents = set(given.abs().argsort(descending=True)[:6].tolist())
    assert float(scores.max()) >= 0.95
    for part in evaluate.CAR_PARTS:
        assert float(by_part[part].max()) >= 0.9 and int(by_part[part].argmax()) in parents


def test_trunk_ends_in_the_logits_of_the_network(network: InceptionV1) -> None:
    images = INPUT.normalize(torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)))
    seen = trunk(network, images)
    torch.testing.assert_close(seen["softmax_pre"], network.logits(images))
    for name, block in SPEC.blocks.items():
        assert seen[name].shape[1] == block.channels


def test_centers_are_where_the_gradient_is_symmetric() -> None:
    module = build().double()
    for weight in module.parameters():
        torch.nn.init.constant_(weight, 1.0)
    images = torch.zeros(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    x = module.pad(images)
    # Average pooling stands for the max pools: ties would send all gradient to one side.
    for name in ("conv2d0", "conv2d1", "conv2d2"):
        x = module.get_submodule(f"{name}_pre")(x)
        x = torch.nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True) if name in SPEC.pool_after else x
    x = torch.nn.functional.avg_pool2d(x, 3, 2, ceil_mode=True)
    x[0, 0, 4, 4].backward()
    assert images.grad is not None
    rows = images.grad[0, 0].sum(dim=1)
    offset, stride = centers(SPEC, PART_LAYER)
    assert float((rows * torch.arange(64)).sum() / rows.sum()) == pytest.approx(offset + 4 * stride)


def test_expanded_kernels_are_the_block_made_linear() -> None:
    module = build().double()
    block = SPEC.blocks[OBJECT_LAYER]
    x = torch.rand(1, SPEC.blocks[PART_LAYER].channels, 7, 7, dtype=torch.float64)
    kernels = evaluate.expanded_kernels(module, OBJECT_LAYER)
    get = module.get_submodule
    name = OBJECT_LAYER
    linear = [get(f"{name}_1x1_pre"), get(f"{name}_3x3_pre"), get(f"{name}_5x5_pre"), get(f"{name}_pool_proj_pre")]
    for layer in module.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None:
            torch.nn.init.zeros_(layer.bias)
    expected = torch.cat([
        linear[0](x), linear[1](get(f"{name}_3x3_bottleneck_pre")(x)), linear[2](get(f"{name}_5x5_bottleneck_pre")(x)),
        linear[3](torch.nn.functional.avg_pool2d(x, 3, 1, 1)),
    ], dim=1)  # fmt: skip
    assert kernels.shape == (block.channels, SPEC.blocks[PART_LAYER].channels, 5, 5)
    torch.testing.assert_close(torch.nn.functional.conv2d(x, kernels, padding=2), expected)


def test_part_maps_cover_the_cells_that_show_the_part() -> None:
    scene = draw(3, "car")
    cells = train.part_map(scene)
    offset, stride = centers(SPEC, PART_LAYER)
    for part in scene.parts:
        # A cell centered well inside a part is full.
        inner = np.argwhere(part.mask[offset::stride, offset::stride])
        assert all(cells[PARTS.index(part.name), y, x] > 0 for y, x in inner)
    absent = [k for k, name in enumerate(PARTS) if name not in {p.name for p in scene.parts}]
    assert not cells[absent].any()


def test_three_steps_of_training_give_the_same_bits_twice(tmp_path: Path) -> None:
    pool = train.make_pool(48, seed=0)
    states = []
    for _ in range(2):
        module = train.train(pool, seed=0, steps=(2, 1), batch_size=16, progress=False)
        states.append(module.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    fresh = build()
    assert states[0].keys() == fresh.state_dict().keys()
    train.write(module, tmp_path / "w.safetensors", {"seed": "0"})
    fresh.load_state_dict(load_file(tmp_path / "w.safetensors"))
    assert all(torch.equal(fresh.state_dict()[k], states[1][k]) for k in states[1])
    assert [p.name for p in tmp_path.iterdir()] == ["w.safetensors"]
