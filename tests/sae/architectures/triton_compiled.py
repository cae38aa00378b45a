"""The Triton kernels compile for a GPU, whether there is one or not; run by `test_kernels.py`."""

from __future__ import annotations

import re
from typing import Any

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from sae.architectures.kernels import triton as gpu

INDICES, NUMBERS, SIZE, FIXED = "*i64", "*fp32", "i32", "constexpr"
ATOMIC = r"(?m)^\s*(@!?%p\d+\s+)?(atom|red)\."


def assembly(kernel: Any, kinds: dict[str, str], fixed: dict[str, Any], warps: int = 4) -> str:
    """PTX for the H100 and its kin; arguments not named in `kinds` or `fixed` are sizes."""
    signature = {name: FIXED if name in fixed else kinds.get(name, SIZE) for name in kernel.arg_names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=fixed)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps})
    text: str = made.asm["ptx"]
    return text


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("pre", ["*fp32", "*bf16"])
def test_the_selection_compiles(pre: str) -> None:
    kinds = {"pre": pre, "values": NUMBERS, "positions": INDICES}
    assert "_largest" in assembly(gpu._largest, kinds, {"TILE": gpu.TILE}, warps=8)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("indexed", [True, False])
def test_the_sums_compile_and_add_nothing_atomically(indexed: bool) -> None:
    pointers = {"starts": INDICES, "ends": INDICES, "indices": INDICES}
    kinds = {"out": NUMBERS, "weights": NUMBERS, "table": NUMBERS, **pointers}
    text = assembly(
        gpu._row_sums, kinds, {"AT_ONCE": gpu.ROWS, "WIDTH": gpu.WIDTH, "INDEXED": indexed, "WEIGHTED": indexed}
    )
    assert "_row_sums" in text and not re.search(ATOMIC, text)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_inner_products_compile_and_add_nothing_atomically() -> None:
    kinds = {"out": NUMBERS, "left": NUMBERS, "right": NUMBERS, "rows": INDICES, "columns": INDICES}
    text = assembly(gpu._dots, kinds, {"PAIRS": gpu.PAIRS, "WIDTH": gpu.WIDTH})
    assert "_dots" in text and not re.search(ATOMIC, text)
