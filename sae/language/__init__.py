"""Sparse autoencoders on transformers: sites, texts, generation, and latents as texts show them.

The SAE core is the same as for the layers of a CNN.
"""

from __future__ import annotations

from sae.language.addresses import TextUnit
from sae.language.generation import Continuation
from sae.language.hook_points import site_paths, why_without_halves
from sae.language.known_features import Gate, KnownFeature, gates, known_features
from sae.language.latent_examples import Activity, TextFeature, activity, promoted, text_features
from sae.language.loss import TextLoss
from sae.language.site import LanguageSite
from sae.language.text_attribution import Cause, TextAttribution, attribute_text
from sae.language.texts import Texts, open_texts, read_texts
from zoo.networks.language import LanguageModel, load_language

__all__ = [
    "Activity",
    "Cause",
    "Continuation",
    "Gate",
    "KnownFeature",
    "LanguageModel",
    "LanguageSite",
    "TextAttribution",
    "TextFeature",
    "TextLoss",
    "TextUnit",
    "Texts",
    "activity",
    "attribute_text",
    "gates",
    "known_features",
    "load_language",
    "open_texts",
    "promoted",
    "read_texts",
    "site_paths",
    "why_without_halves",
    "text_features",
]
