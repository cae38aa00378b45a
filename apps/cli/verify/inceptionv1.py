"""Published facts about the 5h InceptionV1: strongest inputs, the car circuit's kernels, activation statistics."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.verify import families, tuned
from apps.cli.verify.checks import Check, Options, check, skipped
from apps.cli.verify.facts import facts, unit_facts

if TYPE_CHECKING:
    from circuits.network.model import Model

_SOURCE = "Distill 2018-21; captum optim-wip"
_IMAGES = "--images FOLDER with the images of The Building Blocks of Interpretability"


def checks(options: Options) -> Iterator[Check]:
    """All checks of the suite; skipped, each, where the weights are not here."""
    from circuits.network.model import load
    from zoo.registry import get_card, status

    there = status(get_card("inceptionv1"))
    if options.weights is None and not there.available:
        missing = "no weights here: --weights FILE, or inception5h.pth in $CIRCUITS_WEIGHTS"
        for what in (
            "strongest inputs and outputs of mixed3b:379",
            "inputs of mixed3b:208 and mixed3a:222",
            "the car circuit's kernels",
            "the dog circuit's kernels",
            "a chain of curve weights",
            "mixed4d statistics on published images",
        ):
            yield skipped(what, "published", missing, _SOURCE)
        yield from families.without_weights(missing)
        yield from tuned.without_weights(missing)
        return
    model = load("inceptionv1", weights=options.weights, device=options.device)
    yield from strongest(model)
    yield from car(model)
    yield from dogs(model)
    yield from chain(model)
    yield from statistics(model, options)
    yield from families.published(model, options.seed)
    yield from tuned.published(model)


def kernels(model: Model, source: str, target: str) -> Any:
    """Expanded weights from a layer to a unit, cropped to the middle 5x5 as the articles do: `(sources, 5, 5)`."""
    from circuits.attribution.expanded_weights import expanded_weights

    expanded = expanded_weights(model, source=source, target=target).kernels[0].detach().cpu()
    height, width = expanded.shape[1:]
    top, left = max(0, (height - 5) // 2), max(0, (width - 5) // 2)
    return expanded[:, top : top + 5, left : left + 5]


def _top(values: Any, n: int) -> list[int]:
    return [int(c) for c in values.flatten(1).norm(dim=1).argsort(descending=True)[:n]]


def strongest(model: Model) -> Iterator[Check]:
    """The inputs and outputs with the largest weights."""
    from circuits.attribution.expanded_weights import expanded_weights

    expected = unit_facts("top_in_3b379")
    ours = _top(kernels(model, "mixed3a", "mixed3b:379"), 10)
    yield check(
        "top 10 inputs of mixed3b:379 from mixed3a, in order",
        _numbers(expected),
        _numbers(ours),
        ours == expected,
        _SOURCE,
    )
    expected = unit_facts("top_out_3b379")
    outputs = expanded_weights(model, source="mixed3b", target="mixed4a").kernels[:, 379].detach().cpu()
    ours = _top(outputs, 10)
    yield check(
        "top 10 outputs of mixed3b:379 in mixed4a, in order",
        _numbers(expected),
        _numbers(ours),
        ours == expected,
        _SOURCE,
    )
    for identity, source, target in (
        ("top5_3a_to_3b208", "mixed3a", "mixed3b:208"),
        ("top18_conv2d2_to_3b208", "conv2d2", "mixed3b:208"),
    ):
        expected = unit_facts(identity)
        ours = sorted(_top(kernels(model, source, target), len(expected)))
        both = len(set(ours) & set(expected))
        yield check(
            f"top {len(expected)} inputs of {target} from {source}",
            "all of the published",
            f"{both} of {len(expected)}",
            both == len(expected),
            _SOURCE,
        )
    expected = unit_facts("top16_conv2d2_to_3a222")
    edge_kernels = kernels(model, "conv2d2", "mixed3a:222")
    totals = edge_kernels.sum(dim=(1, 2))
    ours = _top(edge_kernels, 16)
    minus, plus = {c for c in ours if totals[c] < 0}, {c for c in ours if totals[c] > 0}
    both = len(minus & set(expected["negative"])) + len(plus & set(expected["positive"]))
    yield check(
        "16 inputs of mixed3a:222 from conv2d2, with signs",
        "12 inhibit, 4 excite",
        f"{both} of 16 as published",
        both == 16,
        _SOURCE,
    )


def _edges(model: Model, layer: str, target: int) -> Iterator[tuple[dict[str, Any], Any]]:
    for edge in facts()["edges"]:
        if (edge["target_layer"], edge["target_unit"]) == (layer, target):
            edge_kernels = kernels(model, edge["source_layer"], f"{layer}:{target}")
            yield edge, edge_kernels


def car(model: Model) -> Iterator[Check]:
    """The three kernels of the car circuit, by correlation and by the signs of their rows; and where they rank."""
    from circuits.common.statistics import correlation

    for edge, edge_kernels in _edges(model, "mixed4c", 447):
        unit = edge["source_unit"]
        kernel = edge_kernels[unit]
        r = correlation(kernel, edge["weights_5x5"])
        rows = kernel.sum(dim=1).tolist()
        signs = [(sum(map(float, row)) > 0) == (ours > 0) for row, ours in zip(edge["weights_5x5"], rows, strict=True)]
        rank = _top(edge_kernels, len(edge_kernels)).index(unit) + 1
        good = r >= 0.99 and all(signs[i] for i in (0, 1, 3, 4))
        yield check(
            f"mixed4b:{unit} -> mixed4c:447 ({edge['note'].partition(':')[0]})",
            f"r >= 0.99, {edge['expected']}",
            f"r {r:.3f}, rows {' '.join(f'{v:+.2g}' for v in rows)}, rank {rank}",
            good,
            _SOURCE,
        )


def dogs(model: Model) -> Iterator[Check]:
    """The kernels of the dog circuit."""
    from circuits.common.statistics import correlation

    for layer, unit in (("mixed4b", 418), ("mixed4b", 443), ("mixed4b", 429)):
        for edge, edge_kernels in _edges(model, layer, unit):
            r = correlation(edge_kernels[edge["source_unit"]], edge["weights_5x5"])
            yield check(
                f"{edge['source_layer']}:{edge['source_unit']} -> {layer}:{unit}",
                "r >= 0.99",
                f"r {r:.3f}",
                r >= 0.99,
                _SOURCE,
            )


def chain(model: Model) -> Iterator[Check]:
    """A chain of weights that ends in a curve detector."""
    import numpy as np

    from circuits.common.statistics import correlation

    for link in unit_facts("aann_chain"):
        if link["from"] == "rgb":
            continue
        source, _, channel = link["from"].partition(":")
        published = np.asarray(link["w"], dtype=float)
        kernel = kernels(model, source, link["to"])[int(channel)]
        cut = (kernel.shape[0] - published.shape[0]) // 2
        ours = kernel[cut : cut + published.shape[0], cut : cut + published.shape[1]] if cut >= 0 else kernel
        r = correlation(ours, published) if tuple(ours.shape) == published.shape else 0.0
        yield check(f"{link['from']} -> {link['to']}", "r > 0.999", f"r {r:.4f}", r > 0.999, _SOURCE)


def statistics(model: Model, options: Options) -> Iterator[Check]:
    """Activations of mixed4d on published images."""
    from circuits import capture
    from zoo.images.sources import open_images

    folder = Path(options.images) if options.images else options.data("building-blocks")
    for name, published in facts()["building_blocks_mixed4d"]["stats"].items():
        what, expected = (
            f"mixed4d on {name}",
            f"max {published['max']:g}, mean {published['mean']:g}, same top 8 channels",
        )
        files = (
            [p for p in sorted(folder.glob(f"{name}.*")) if p.is_file()]
            if folder is not None and folder.is_dir()
            else []
        )
        if not files:
            yield skipped(what, expected, f"no {name}.jpeg: {_IMAGES}", _SOURCE)
            continue
        acts = capture(model, open_images(files[0]), ["mixed4d"])["mixed4d"][0]
        top = [int(c) for c in acts.amax(dim=(1, 2)).argsort(descending=True)[:8]]
        highest, mean = float(acts.max()), float(acts.mean())
        near = abs(highest / published["max"] - 1) < 0.02 and abs(mean / published["mean"] - 1) < 0.02
        shared = len(set(top) & set(published["top8_channels_by_max"]))
        yield check(what, expected, f"max {highest:.2f}, mean {mean:.3f}, {shared} of 8", near and shared == 8, _SOURCE)


def _numbers(values: list[int]) -> str:
    return " ".join(map(str, values))
