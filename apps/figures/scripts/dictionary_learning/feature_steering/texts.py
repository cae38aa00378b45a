"""Evaluating Feature Steering: what a small language model writes, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.context import NotApplicable
from apps.figures.figure import Claim, FigureResult, figure
from apps.figures.helpers.trained_saes import dictionary

if TYPE_CHECKING:
    from apps.figures.context import FigureContext

_SITE = "layers.2.resid"
_PROMPT = "One day Anna walked to"
_TOKEN = 5
"""The first that is written, `the` before a place as a rule."""
_CLEAN, _SOME, _FULL, _FAR, _ONCE = (0.0, False), (0.5, False), (1.0, False), (2.0, False), (7.0, True)
"""Multiples of the maximum, and whether only at that token."""


@figure(
    "St3",
    "steered-texts",
    "Texts before and after steering",
    paper="steering",
    shows="A model whose latent for a landmark is turned up writes of it: nonsense where it is turned up everywhere, "
    "whole sentences where at one token.",
    fits="language",
    cost=60,
)
def draw(context: FigureContext) -> FigureResult:
    """Find the latent that knows the landmark, turn it up, at every token or at one, and count what is written."""
    from apps.figures.context import LANGUAGE
    from apps.figures.drawing.steered_texts import Written, written_figure
    from zoo import tales
    from zoo.errors import CircuitsError

    try:
        from sae.language import LanguageSite, known_features, open_texts
        from sae.steering import LatentEdit, maxima, steer
        from zoo.networks.language import load_language

        lm = load_language(LANGUAGE)
    except (ImportError, CircuitsError) as error:
        raise NotApplicable(f"needs the extra lm: pip install 'vision-circuits[lm]' ({error})") from error
    site = LanguageSite(lm, _SITE)
    texts = open_texts(f"tales:{context.size(3000, 1500, 120)}@{context.seed + 2}")
    s = dictionary(context, site, texts, latents=512, k=4, steps=context.size(3000, 1000, 20), seed=context.seed)
    stories = tales.sample(context.size(400, 150, 40), seed=context.seed + 1)
    known = {one.name: one for one in known_features(s, site, stories)}
    if "landmark_due" not in known:
        raise NotApplicable("needs a language model that knows of the landmark")
    landmark = known["landmark_due"]
    strengths = maxima(s, site, open_texts(f"tales:{context.size(500, 200, 30)}@{context.seed + 5}"))
    prompts = [_PROMPT] * context.size(40, 12, 4)

    def written(latent: int, factor: float, once: bool) -> dict[str, Any]:
        edits = [LatentEdit(latent, "set", factor, unit="max", at=(_TOKEN,) if once else "all")] if factor else []
        with steer(site, s, edits, maxima=strengths):
            found = [one.whole for one in site.generate(prompts, max_new_tokens=40, seed=context.seed)]
        named = sum(tales.mentions(text) > 0 for text in found) / len(found)
        return {"texts": found, "named": named, "right": sum(map(tales.parses, found)) / len(found)}

    rows = {way: written(landmark.latent, *way) for way in (_CLEAN, _SOME, _FULL, _FAR, _ONCE)}
    chosen = strengths.random_active(context.size(6, 3, 1), exclude=[landmark.latent], seed=context.seed)
    control = {(way, i): written(i, *way) for way in (_FULL, _ONCE) for i in chosen}
    clean, everywhere, far, once = rows[_CLEAN], rows[_FULL], rows[_FAR], rows[_ONCE]
    most = {
        way: max(clean["named"], *(one["named"] for (how, _), one in control.items() if how == way))
        for way in (_FULL, _ONCE)
    }
    drawing = written_figure(
        [Written(_named("landmark", way), one["texts"][:3], one["named"], one["right"]) for way, one in rows.items()]
        + [
            Written(_named(f"random latent {i}", way), one["texts"][:1], one["named"], one["right"])
            for (way, i), one in control.items()
            if i == chosen[0]
        ],
        marks=(tales.THE_LANDMARK.name, tales.THE_LANDMARK.description),
        title=f"What {lm.name} writes when latent {landmark.latent} is turned up",
        about=f"after “{_PROMPT}”, {len(prompts)} times each",
    )
    claims = [
        Claim(
            "turned up everywhere, texts name the landmark more often: share of texts",
            float(everywhere["named"]),
            float(most[_FULL]),
            bool(everywhere["named"] > most[_FULL]),
            "unsteered, or the most by a random latent at its maximum",
        ),
        Claim(
            "turned up at one token, they do so, too: share of texts",
            float(once["named"]),
            float(most[_ONCE]),
            bool(once["named"] > most[_ONCE]),
            "unsteered, or the most by a random latent at that token",
        ),
        Claim(
            "everywhere, sentences fall apart: share that the grammar has",
            float(far["right"]),
            float(clean["right"]),
            float(far["right"]) < 0.8 * float(clean["right"]),
            "unsteered",
        ),
        Claim(
            "at one token they hold: share that the grammar has",
            float(once["right"]),
            float(clean["right"]),
            float(once["right"]) > 0.95 * float(clean["right"]),
            "unsteered, to within a twentieth",
        ),
    ]
    numbers = {
        "latent": landmark.latent,
        "auc": landmark.auc,
        "channel_auc": landmark.channel_auc,
        "rows": [{"factor": f, "once": once, **one} for (f, once), one in rows.items()],
        "random": [
            {"latent": i, "factor": f, "once": once, "named": one["named"], "right": one["right"]}
            for ((f, once), i), one in control.items()
        ],
    }
    caption = (
        f"Texts of the model {lm.name} after one prompt, with the latent of {_SITE} that best tells where the landmark "
        f"is due (AUC {landmark.auc:.2f}, the best channel {landmark.channel_auc:.2f}) set to multiples of its largest "
        "activation, at every token or only at the first that is written. TopK SAE of 512 latents, 4 active, "
        f"trained on {len(texts)} stories."
    )
    return FigureResult({"": drawing}, numbers, caption, claims)


def _named(what: str, way: tuple[float, bool]) -> str:
    factor, once = way
    if not factor:
        return "unsteered"
    return f"{what}, {factor:g} × max{', once' if once else ''}"
