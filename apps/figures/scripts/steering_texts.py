"""Evaluating Feature Steering: what a small language model writes, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from apps.figures.dictionaries import dictionary
from apps.figures.figure import Claim, Drawn, NotHere, figure

if TYPE_CHECKING:
    from apps.figures.bench import Bench

_SITE = "layers.2.resid"
_PROMPT = "One day Anna walked to"
_FACTORS = (0.0, 0.5, 1.0, 2.0)


@figure(
    "St3",
    "steered-texts",
    "Texts before and after steering",
    paper="steering",
    shows="A model whose latent for a landmark is turned up writes of it; turned too far, it writes nonsense.",
    fits="language",
    cost=60,
)
def draw(bench: Bench) -> Drawn:
    """Find the latent that knows the landmark, turn it up, and count what is written."""
    from apps.figures.bench import LANGUAGE
    from circuits.plot.steered_texts import Written, written_figure
    from zoo import tales
    from zoo.errors import CircuitsError

    try:
        from sae.language import LanguageSite, known_features, open_texts
        from sae.steering import LatentEdit, maxima, steer
        from zoo.language import load_language

        lm = load_language(LANGUAGE)
    except (ImportError, CircuitsError) as error:
        raise NotHere(f"needs the extra lm: pip install 'vision-circuits[lm]' ({error})") from error
    site = LanguageSite(lm, _SITE)
    texts = open_texts(f"tales:{bench.size(1500, 600, 120)}@{bench.seed + 2}")
    s = dictionary(bench, site, texts, latents=256, k=12, steps=bench.size(400, 150, 20), seed=bench.seed)
    stories = tales.sample(bench.size(400, 150, 40), seed=bench.seed + 1)
    known = {one.name: one for one in known_features(s, site, stories)}
    if "landmark_due" not in known:
        raise NotHere("needs a language model that knows of the landmark")
    landmark = known["landmark_due"]
    strengths = maxima(s, site, open_texts(f"tales:{bench.size(200, 100, 30)}@{bench.seed + 5}"))
    prompts = [_PROMPT] * bench.size(40, 12, 4)

    def written(latent: int, factor: float) -> dict[str, Any]:
        edits = [LatentEdit(latent, "set", factor, unit="max")] if factor else []
        with steer(site, s, edits, maxima=strengths):
            found = [one.whole for one in site.generate(prompts, max_new_tokens=40, seed=bench.seed)]
        named = sum(tales.mentions(text) > 0 for text in found) / len(found)
        return {"texts": found, "named": named, "right": sum(map(tales.parses, found)) / len(found)}

    rows = {factor: written(landmark.latent, factor) for factor in _FACTORS}
    fires = [i for i in (strengths.values > 0).nonzero().flatten().tolist() if i != landmark.latent]
    control = [fires[(7 + 31 * i) % len(fires)] for i in range(bench.size(6, 3, 1))]
    random = {i: written(i, 1.0) for i in control}
    best = max(_FACTORS[1:], key=lambda f: float(rows[f]["named"]))
    most_random = max(float(one["named"]) for one in random.values())
    drawing = written_figure(
        [
            Written(
                "unsteered" if not f else f"landmark, {f:g} × maximum", one["texts"][:3], one["named"], one["right"]
            )
            for f, one in rows.items()
        ]
        + [
            Written(f"random latent {i}, 1 × maximum", one["texts"][:1], one["named"], one["right"])
            for i, one in list(random.items())[:2]
        ],
        mark=f"{tales.THE_LANDMARK.colour} {tales.THE_LANDMARK.structure}",
        title=f"What {lm.name} writes when latent {landmark.latent} is turned up",
        about=f"after “{_PROMPT}”, {len(prompts)} times each",
    )
    claims = [
        Claim(
            "turned up, texts name the landmark more often: share of texts",
            float(rows[best]["named"]),
            max(float(rows[0.0]["named"]), most_random),
            float(rows[best]["named"]) > max(float(rows[0.0]["named"]), most_random),
            "unsteered, or the most by a random latent at its maximum",
        ),
        Claim(
            "turned too far, sentences fall apart: share that the grammar has",
            float(rows[_FACTORS[-1]]["right"]),
            float(rows[0.0]["right"]),
            float(rows[_FACTORS[-1]]["right"]) < 0.8 * float(rows[0.0]["right"]),
            "unsteered",
        ),
    ]
    numbers = {
        "latent": landmark.latent,
        "auc": landmark.auc,
        "channel_auc": landmark.channel_auc,
        "rows": {str(f): one for f, one in rows.items()},
        "random": {str(i): {"named": one["named"], "right": one["right"]} for i, one in random.items()},
    }
    caption = (
        f"Texts of the model {lm.name} after one prompt, with the latent of {_SITE} that best tells where the landmark "
        f"is due (AUC {landmark.auc:.2f}, the best channel {landmark.channel_auc:.2f}) set to multiples of its largest "
        f"activation at every token. TopK SAE of 256 latents, 12 active, trained on {len(texts)} stories."
    )
    return Drawn({"": drawing}, numbers, caption, claims)
