"""Networks by family: how they are built, and how their files are read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.networks.language import LanguageModel, load_language

__all__ = ["LanguageModel", "load_language"]


def __getattr__(name: str) -> Any:
    if name in __all__:  # on first use: language models need torch, and their files transformers
        from zoo.networks import language

        return getattr(language, name)
    raise AttributeError(f"module 'zoo.networks' has no attribute {name!r}")
