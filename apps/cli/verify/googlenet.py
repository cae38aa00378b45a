"""The BVLC GoogLeNet on photographs: are the weights and the preprocessing right?"""

from __future__ import annotations

from collections.abc import Iterator

from apps.cli.verify.checks import Check, Options, check, skipped

TOP1, TOP5, NEAR = 0.747, 0.926, 0.005
"""Measured with Caffe's weights on the center crops of 1,000 photographs, one per class, short side 256."""


def checks(options: Options) -> Iterator[Check]:
    """All checks of the suite; skipped where weights or photographs are not here."""
    from circuits import capture
    from circuits.network.model import load
    from zoo.images.sources import open_images
    from zoo.registry import get_card, status

    what, expected = "top-1 and top-5 on 1,000 photographs", f"{TOP1} and {TOP5} (+-{NEAR})"
    there = status(get_card("googlenet-bvlc"))
    if options.weights is None and not there.available:
        yield skipped(what, expected, f"weights: {there.how}, or give --weights FILE")
        return
    folder = options.data("imagenet-sample")
    if folder is None:
        yield skipped(
            what, expected, "photographs: give --images FOLDER, one image per class in the order of the classes"
        )
        return
    model = load("googlenet-bvlc", weights=options.weights, device=options.device)
    images = open_images(folder)
    if len(images) != len(model.classes):
        yield skipped(
            what,
            expected,
            f"{folder} has {len(images)} images; it takes one per class, {len(model.classes)}, in order",
        )
        return
    chosen = (
        list(range(len(images)))
        if options.limit is None
        else list(range(0, len(images), -(-len(images) // options.limit)))
    )
    scores = capture(model, images.subset(chosen), [model.logits], batch_size=32)[model.logits].flatten(1)
    ranked = scores.argsort(dim=1, descending=True)[:, :5].tolist()
    first = sum(row[0] == i for row, i in zip(ranked, chosen, strict=True)) / len(chosen)
    five = sum(i in row for row, i in zip(ranked, chosen, strict=True)) / len(chosen)
    near = NEAR if options.limit is None else 2 * (0.25 / len(chosen)) ** 0.5  # two standard errors of a share
    good = abs(first - TOP1) <= near and abs(five - TOP5) <= near
    yield check(what, f"{TOP1} and {TOP5} (+-{near:.2g})", f"{first:.3f} and {five:.3f}", good)
