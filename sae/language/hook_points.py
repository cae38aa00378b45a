"""Sites of a transformer by names that are the same for every family of models."""

from __future__ import annotations

from typing import Any

from torch import nn

from sae.errors import SAEError, shorten
from sae.language.block_halves import halves
from zoo.networks.language import LanguageModel

KINDS = ("resid", "mlp", "attn")
_ATTENTION = ("self_attn", "attn", "attention", "self_attention")
_MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe")


def site_paths(lm: LanguageModel) -> dict[str, str]:
    """The sites of a language model: `layers.N.resid`, `layers.N.attn`, `layers.N.mlp` -> path of a submodule.

    `resid` is the residual stream after block N; `attn` and `mlp` are what the two halves of the block add to it:
    `resid[N] = resid[N-1] + attn[N] + mlp[N]`. A short text is run to see which modules give that: with a norm after
    each half (Gemma 2, OLMo 2, GLM 4) those norms; in BLOOM and MPT projections inside of the modules. Where none do
    (Granite multiplies what is added), there are no such sites, and `why_without_halves` says why. Only in models that
    normalize the stream itself (BERT) `resid` is the norm of that sum.

    Raises:
        SAEError: no list of as many blocks with attention as the configuration has layers.

    >>> site_paths(load_language("tales"))["layers.2.resid"]  # doctest: +SKIP
    'model.layers.2'
    """
    path, blocks = _blocks(lm)
    resolved = _resolved(lm, path, blocks)
    paths = {}
    for n, block in enumerate(blocks):
        prefix = f"{path}.{n}"
        paths[f"layers.{n}.resid"] = prefix
        if isinstance(resolved, str):
            continue
        for kind, inner in zip(("attn", "mlp"), resolved or (_attention(block), _mlp(block)), strict=True):
            if inner is not None:
                paths[f"layers.{n}.{kind}"] = f"{prefix}.{inner}"
    return paths


def mlp_path(lm: LanguageModel, block: str) -> str:
    """Path of the module that is the MLP of a block, `layers.N`: what goes into it is the site `layers.N.mlp_in`.

    Raises:
        SAEError: no such block, or no module of it is known to be its MLP.
    """
    path, blocks = _blocks(lm)
    number = block.removeprefix("layers.")
    if not (block.startswith("layers.") and number.isdecimal() and int(number) < len(blocks)):
        raise SAEError(f"{lm.name} has no site {shorten(block)}.mlp_in: N of layers.N.mlp_in is 0 to {len(blocks) - 1}")
    names = ("intermediate",) if _is_bert(blocks[int(number)]) else _MLP
    name = next((n for n in names if hasattr(blocks[int(number)], n)), None)
    if name is None:
        raise SAEError(f"{lm.name}: no module of {block} is known to be its MLP; there are {', '.join(_MLP)}")
    return f"{path}.{number}.{name}"


def why_without_halves(lm: LanguageModel) -> str | None:
    """Why a language model has no sites `layers.N.attn` and `layers.N.mlp`; None where it has."""
    resolved = _resolved(lm, *_blocks(lm))
    return resolved if isinstance(resolved, str) else None


def check_halves(lm: LanguageModel, index: int) -> None:
    """Refuse a block whose halves add something else than those of the block that was looked at.

    Raises:
        SAEError: its sites `attn` and `mlp` are not what it adds to the stream.
    """
    path, blocks = _blocks(lm)
    resolved = _resolved(lm, path, blocks)
    if isinstance(resolved, tuple):
        own = halves(lm, path, index, resolved)
        if own != resolved:
            reason = (
                own
                if isinstance(own, str)
                else f"they are {own[0]} and {own[1]}, elsewhere {resolved[0]} and {resolved[1]}"
            )
            raise SAEError(f"what attention and MLP of layers.{index} add to the stream of {lm.name}: {reason}")


def _blocks(lm: LanguageModel) -> tuple[str, nn.ModuleList]:
    count = getattr(lm.config, "num_hidden_layers", None)
    for path, part in lm.module.named_modules():
        if isinstance(part, nn.ModuleList) and len(part) == count and count and _attention(part[0]) is not None:
            return path, part
    raise SAEError(
        f"{lm.name} is a {type(lm.module).__name__}, in which no list of {shorten(count)} blocks with attention was "
        "found: no site is known in it"
    )


def _resolved(lm: LanguageModel, path: str, blocks: nn.ModuleList) -> tuple[str, str] | str | None:
    """Paths in every block of what its halves add, or why there are none; None where only the names tell (BERT)."""
    index = min(1, len(blocks) - 1)
    names = _attention(blocks[index]), _mlp(blocks[index])
    if _is_bert(blocks[index]):
        return None
    return halves(lm, path, index, (names[0] or "", names[1] or ""))


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
