"""Towards Monosemanticity: the effect of more latents and of more data."""

from __future__ import annotations

from apps.figures.context import FigureContext
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import RATE, halves, middle_layer, vectors_of


@figure(
    "M5",
    "sae-scaling",
    "Larger dictionaries explain more",
    paper="monosemanticity",
    shows="The error falls steadily with the number of latents, and with the amount of data.",
    cost=150,
)
def draw(context: FigureContext) -> FigureResult:
    """Train dictionaries of several sizes on few and on many images, and evaluate them on held-out ones."""
    import sae
    from circuits.plot.sae.dictionaries import scaling_figure

    layer = middle_layer(context)
    site = sae.VisionSite(context.model, layer)
    training, held_out = halves(context.images.spread(context.size(400, 300, 90)))
    vectors = vectors_of(context, site, held_out)
    k = max(2, min(32, site.d // 8))
    sizes = [max(k + 1, round(site.d * times)) for times in context.size((0.5, 1, 2, 4), (0.5, 1, 2, 4), (1, 4))]
    steps = context.size(150, 150, 30)
    rows: dict[str, list[dict[str, object]]] = {}
    for images in (training.spread(max(4, len(training) // 8)), training):
        configs = [sae.TopK(latents=m, k=k) for m in sizes]
        stream = site.stream(images, batch_size=512, seed=context.seed)
        runs = sae.train(stream, configs, steps=steps, lr=RATE, seed=context.seed)
        rows[f"{len(images)} images"] = sae.summary(runs, vectors, seed=context.seed)
    unexplained = {name: [float(str(row["fvu"])) for row in some_rows] for name, some_rows in rows.items()}
    few, many = unexplained.values()
    baselines = {
        f"{name}, {k} active": [float(str(row[f"{key}_fvu"])) for row in [*rows.values()][-1]]
        for key, name in (("channels", "channels"), ("random", "random directions"))
    }
    drawing = scaling_figure(
        sizes,
        unexplained,
        baselines,
        title=f"Dictionaries of {layer} by size and data",
        about=f"TopK, {k} latents active, {steps} steps of 512 vectors each; on {len(vectors):,} vectors of "
        f"{len(held_out)} images held out",
    )
    claims = [
        Claim.below("more latents leave less variance unexplained", many[-1], many[0], f"{sizes[0]} latents"),
        Claim.below(
            "more data leave less variance of held-out images unexplained",
            many[-1],
            few[-1],
            f"trained on {next(iter(unexplained))}",
        ),
        Claim(
            "every dictionary explains more than as many channels",
            max(many),
            min(next(iter(baselines.values()))),
            all(a < b for a, b in zip(many, next(iter(baselines.values())), strict=True)),
            "channels",
        ),
    ]
    numbers = {"sizes": sizes, "unexplained": unexplained, "baselines": baselines, "steps": steps, "k": k}
    caption = (
        f"Variance of held-out activations of {layer} that TopK dictionaries of {sizes[0]} to {sizes[-1]} latents "
        f"leave unexplained, trained equally on {' and on '.join(unexplained)}; dashed, channels and random directions."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)
