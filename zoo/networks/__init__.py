"""Networks by family: how they are built, and how their files are read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zoo.common.lazy import lazy_names

if TYPE_CHECKING:
    from zoo.networks.language import LanguageModel as LanguageModel, load_language as load_language
else:
    __getattr__, __dir__, __all__ = lazy_names(__name__)
