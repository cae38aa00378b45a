"""Sparse autoencoders on transformers: sites, texts, generation, and latents as texts show them.

The SAE core is the same as for the layers of a CNN.
"""

from __future__ import annotations

from sae.language.addresses import TextUnit as TextUnit
from sae.language.attribution.text_attribution import (
    Cause as Cause,
    TextAttribution as TextAttribution,
    attribute_text as attribute_text,
)
from sae.language.attribution.text_network import text_network as text_network
from sae.language.generation import Continuation as Continuation
from sae.language.hook_points import site_paths as site_paths, why_without_halves as why_without_halves
from sae.language.known_features import (
    Gate as Gate,
    KnownFeature as KnownFeature,
    gates as gates,
    known_features as known_features,
)
from sae.language.latent_examples import (
    Activity as Activity,
    TextFeature as TextFeature,
    activity as activity,
    promoted as promoted,
    text_features as text_features,
)
from sae.language.loss import TextLoss as TextLoss
from sae.language.pair import LanguagePair as LanguagePair
from sae.language.site import LanguageSite as LanguageSite
from sae.language.texts import Texts as Texts, open_texts as open_texts, read_texts as read_texts
from zoo.common.lazy import public_names
from zoo.networks.language import LanguageModel as LanguageModel, load_language as load_language

__all__ = public_names(__name__)
