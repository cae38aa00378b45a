"""Evaluating Feature Steering: texts of a small language model with and without steering."""

from __future__ import annotations

from typing import Any

from apps.figures.context import LANGUAGE, FigureContext, NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import dictionary

_SITE = "layers.2.resid"
_PROMPT = "One day Anna walked to"
_TOKEN = 5
"""Position of the first generated token: usually `the` before the name of a location."""
_CLEAN, _HALF, _FULL, _DOUBLE, _ONCE = (0.0, False), (0.5, False), (1.0, False), (2.0, False), (7.0, True)
"""Factors of the maximum, and whether only that token is steered."""


@figure(
    "St3",
    "steered-texts",
    "Texts before and after steering",
    paper="steering",
    shows="A model whose latent for a landmark is steered writes about it: incoherently where all tokens are "
    "steered, in correct sentences where one is.",
    fits="language",
    cost=60,
)
def draw(context: FigureContext) -> FigureResult:
    """Find the latent for the landmark, steer it at every token or at one, and count mentions and correct sentences."""
    from apps.figures.drawing.steered_texts import TextGroup, text_groups_figure
    from zoo import tales
    from zoo.errors import CircuitsError

    try:
        from sae.language import LanguageSite, known_features, open_texts
        from sae.steering import EqualStep, LatentEdit, maxima, steered
        from zoo.networks.language import load_language

        lm = load_language(LANGUAGE)
    except (ImportError, CircuitsError) as error:
        raise NotApplicable(f"needs the extra lm: pip install 'vision-circuits[lm]' ({error})") from error
    site = LanguageSite(lm, _SITE)
    texts = open_texts(f"tales:{context.size(3000, 1500, 120)}@{context.seed + 2}")
    s = dictionary(context, site, texts, latents=512, k=4, steps=context.size(3000, 1000, 20), seed=context.seed)
    stories = tales.sample(context.size(400, 150, 40), seed=context.seed + 1)
    features = {feature.name: feature for feature in known_features(s, site, stories)}
    if "landmark_due" not in features:
        raise NotApplicable("needs a language model with a feature for the landmark")
    landmark = features["landmark_due"]
    strengths = maxima(s, site, open_texts(f"tales:{context.size(500, 200, 30)}@{context.seed + 5}"))
    prompts = [_PROMPT] * context.size(40, 12, 4)

    def generate(factor: float, once: bool, other: int | None = None) -> dict[str, Any]:
        where = (_TOKEN,) if once else "all"
        edits = [LatentEdit(landmark.latent, "set", factor, unit="max", at=where)] if factor else []
        own = steered(site, s, edits, maxima=strengths)
        with site.replaced(own if other is None else EqualStep.of_latents(own, {landmark.latent: other})):
            generated = [text.whole for text in site.generate(prompts, max_new_tokens=40, seed=context.seed)]
        mentions = sum(tales.mentions(text) > 0 for text in generated) / len(generated)
        return {"texts": generated, "named": mentions, "right": sum(map(tales.parses, generated)) / len(generated)}

    rows = {way: generate(*way) for way in (_CLEAN, _HALF, _FULL, _DOUBLE, _ONCE)}
    random_latents = strengths.random_active(context.size(6, 3, 1), exclude=[landmark.latent], seed=context.seed)
    control = {(way, i): generate(*way, i) for way in (_FULL, _ONCE) for i in random_latents}
    clean, everywhere, double, once = rows[_CLEAN], rows[_FULL], rows[_DOUBLE], rows[_ONCE]
    most = {
        way: max(clean["named"], *(result["named"] for (other, _), result in control.items() if other == way))
        for way in (_FULL, _ONCE)
    }
    drawing = text_groups_figure(
        [TextGroup(_heading("landmark", way), r["texts"][:3], r["named"], r["right"]) for way, r in rows.items()]
        + [
            TextGroup(_heading(f"along latent {i}", way), r["texts"][:1], r["named"], r["right"])
            for (way, i), r in control.items()
            if i == random_latents[0]
        ],
        marks=(tales.THE_LANDMARK.name, tales.THE_LANDMARK.description),
        title=f"Texts of {lm.name} with latent {landmark.latent} steered",
        about=f"after “{_PROMPT}”, {len(prompts)} times each",
    )
    claims = [
        Claim.above(
            "steered everywhere, texts name the landmark more often: share of texts",
            float(everywhere["named"]),
            float(most[_FULL]),
            "unsteered, or the most by a step as long along a random latent",
        ),
        Claim.above(
            "steered at one token, texts name the landmark more often, too: share of texts",
            float(once["named"]),
            float(most[_ONCE]),
            "unsteered, or the most by a step as long along a random latent",
        ),
        Claim(
            "steered everywhere, fewer sentences are grammatical: share",
            float(double["right"]),
            float(clean["right"]),
            float(double["right"]) < 0.8 * float(clean["right"]),
            "unsteered",
        ),
        Claim(
            "steered at one token, as many sentences are grammatical: share",
            float(once["right"]),
            float(clean["right"]),
            float(once["right"]) > 0.95 * float(clean["right"]),
            "unsteered; within 5 %",
        ),
    ]
    numbers = {
        "latent": landmark.latent,
        "auc": landmark.auc,
        "channel_auc": landmark.channel_auc,
        "rows": [{"factor": f, "once": once, **result} for (f, once), result in rows.items()],
        "random": [
            {"latent": i, "factor": f, "once": once, "named": result["named"], "right": result["right"]}
            for ((f, once), i), result in control.items()
        ],
    }
    caption = (
        f"Texts of the model {lm.name} after one prompt, with the latent of {_SITE} that best predicts the landmark "
        f"(AUC {landmark.auc:.2f}, the best channel {landmark.channel_auc:.2f}) set to multiples of its largest "
        "activation, at every token or only at the first generated one. TopK SAE of 512 latents, 4 active, "
        f"trained on {len(texts)} stories."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _heading(name: str, way: tuple[float, bool]) -> str:
    factor, once = way
    if not factor:
        return "unsteered"
    return f"{name}, {factor:g} × max{', once' if once else ''}"
