"""What attention and MLP of a block add to the residual stream: found by running the block, not by its names.

In most families the two modules give what is added. In others a module adds the stream itself (BLOOM, MPT), or what it
gives is normalized (GLM 4) or multiplied (Granite) on the way. So one short text is run, and the two modules are looked
for whose outputs, with the stream before, sum to the stream after.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from circuits.network.hooks import hooked
from sae.errors import shorten
from zoo.networks.language import LanguageModel

TOKENS = 8
"""Length of the text that is run."""

_KNOWN: WeakKeyDictionary[LanguageModel, dict[tuple[str, int], tuple[str, str] | str]] = WeakKeyDictionary()


def halves(lm: LanguageModel, blocks: str, index: int, names: tuple[str, str]) -> tuple[str, str] | str:
    """Paths inside a block of the modules that give what attention and MLP add; or why there are none.

    Args:
        lm: the model.
        blocks: path of its list of blocks.
        index: which of them.
        names: of the two modules that go by these names; they are tried first.
    """
    known = _KNOWN.setdefault(lm, {})
    if (blocks, index) not in known:
        known[blocks, index] = _search(lm, blocks, index, names)
    return known[blocks, index]


def _search(lm: LanguageModel, blocks: str, index: int, names: tuple[str, str]) -> tuple[str, str] | str:
    try:
        before, outputs, after = _run(lm, blocks, index)
    except Exception as error:  # whatever the model's own forward raises
        return f"the block could not be run to see what they add ({shorten(error, 100)})"
    if before is None or after is None:
        return "the block's stream was not seen"
    change = (after - before).double()
    allowed = max(1e-4, 8 * torch.finfo(after.dtype).eps) * float(after.double().norm())

    def adds_up(pair: tuple[str, str]) -> bool:
        return float((outputs[pair[0]].double() + outputs[pair[1]].double() - change).norm()) <= allowed

    if all(name in outputs for name in names) and adds_up(names):
        return names
    # the outermost modules first: a dropout passes on what the projection inside of it gave
    ordered = sorted(outputs, key=lambda path: path.count("."))
    attention, others = ([p for p in ordered if _of_attention(p) == side] for side in (True, False))
    for pair in ((a, b) for a in attention for b in others):
        if adds_up(pair):
            return pair
    if all(name in outputs for name in names):
        given = (outputs[names[0]] + outputs[names[1]]).double()
        factor = float((given * change).sum() / given.square().sum())
        if float((factor * given - change).norm()) <= allowed:
            return f"the block adds {factor:.3g} times what its modules give, and no module gives that"
    return "no two modules of the block give what it adds to the stream"


def _of_attention(path: str) -> bool:
    return any(word in path.partition(".")[0] for word in ("attn", "attention"))


def _run(lm: LanguageModel, blocks: str, index: int) -> tuple[Tensor | None, dict[str, Tensor], Tensor | None]:
    """The stream before a block, the outputs of all modules in it that are as wide, and the stream after."""
    every: Any = lm.module.get_submodule(blocks)
    streams: dict[int, Tensor] = {}
    outputs: dict[str, Tensor] = {}

    def stream(number: int) -> Any:
        def keep(_module: nn.Module, inputs: Any, out: Any) -> None:
            if number == 0 and index == 0 and inputs:
                streams[-1] = inputs[0].detach().clone()
            streams[number] = _first(out).detach().clone()

        return keep

    def output(path: str) -> Any:
        def keep(_module: nn.Module, _inputs: Any, out: Any) -> None:
            value = _first(out)
            if isinstance(value, Tensor) and value.ndim == 3 and value.shape[-1] == lm.width:
                outputs[path] = value.detach().clone()

        return keep

    length = min(TOKENS, lm.context)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(int(lm.config.vocab_size), (1, length), generator=generator)
    options: dict[str, Any] = {"use_cache": False} if lm.causal else {"attention_mask": torch.ones_like(ids)}
    with ExitStack() as stack, torch.no_grad():
        stack.enter_context(lm.lock)
        for number in {max(index - 1, 0), index}:
            stack.enter_context(hooked(every[number], stream(number)))
        for path, part in every[index].named_modules():
            if path:
                stack.enter_context(hooked(part, output(path)))
        lm.run(ids, **options)
    return streams.get(index - 1), outputs, streams.get(index)


def _first(out: Any) -> Any:
    return out[0] if isinstance(out, tuple) and out else out
