"""Sites of a transformer by names that are the same for every family of models."""

from __future__ import annotations

from typing import Any

from torch import nn

from sae.errors import SAEError, shorten
from zoo.networks.language import LanguageModel

KINDS = ("resid", "mlp", "attn")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


def site_paths(lm: LanguageModel) -> dict[str, str]:
    """The sites of a language model: `layers.N.resid`, `layers.N.attn`, `layers.N.mlp` -> path of a submodule.

    `resid` is the residual stream after block N; `attn` and `mlp` are what the two halves of the block add to it. With
    a norm after each half (Gemma 2, OLMo 2) they are the outputs of that norm, so that always `resid[N] = resid[N-1] +
    attn[N] + mlp[N]`; only in models that normalize the stream itself (BERT) `resid` is the norm of that sum.

    Raises:
        SAEError: no list of as many blocks with attention as the configuration has layers.

    >>> site_paths(load_language("tales"))["layers.2.resid"]  # doctest: +SKIP
    'model.layers.2'
    """
    count = getattr(lm.config, "num_hidden_layers", None)
    for path, part in lm.module.named_modules():
        if isinstance(part, nn.ModuleList) and len(part) == count and count and _attention(part[0]) is not None:
            return _paths(path, part)
    raise SAEError(
        f"{lm.name} is a {type(lm.module).__name__}, in which no list of {shorten(count)} blocks with attention was "
        "found: no site is known in it"
    )


def _paths(path: str, blocks: nn.ModuleList) -> dict[str, str]:
    paths = {}
    for n, block in enumerate(blocks):
        prefix = f"{path}.{n}"
        paths[f"layers.{n}.resid"] = prefix
        for kind, inner in (("attn", _attention(block)), ("mlp", _mlp(block))):
            if inner is not None:
                paths[f"layers.{n}.{kind}"] = f"{prefix}.{inner}"
    return paths


def _attention(block: Any) -> str | None:
    name = next((n for n in _ATTENTION if hasattr(block, n)), None)
    if name is None:
        return None
    if hasattr(block, "post_feedforward_layernorm"):  # then the two names with `post` are norms after the halves
        return "post_attention_layernorm"
    # in BERT and its kin this module adds the stream and normalizes the sum: what it adds is its dense layer's
    return f"{name}.output.dense" if _is_bert(block) else name


def _mlp(block: Any) -> str | None:
    if hasattr(block, "post_feedforward_layernorm"):
        return "post_feedforward_layernorm"
    if _is_bert(block):
        return "output.dense"
    return next((n for n in _MLP if hasattr(block, n)), None)


def _is_bert(block: Any) -> bool:
    return hasattr(block, "intermediate") and hasattr(getattr(block, "output", None), "dense")
