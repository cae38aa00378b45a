"""The native layout: a folder that SAELens (6 and on) reads as its own.

cfg.json                 architecture, sizes, metadata
sae_weights.safetensors  W_enc (d, m), W_dec (m, d), b_enc, b_dec, threshold, ...
sparsity.safetensors     optional: log10 of the share of inputs on which each latent fires

Mean and scale of the inputs are folded into the weights, so that any reader gets raw activations right;
they are kept in the metadata. A BatchTopK or Matryoshka SAE is written as the JumpReLU it is at inference.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from sae.architectures.base import SAE
from sae.evaluation.metrics import log10_density
from sae.formats.atomic_pair import Pair
from sae.formats.detect import Found, Layout, read_safetensors
from sae.formats.saelens import from_saelens, to_saelens
from zoo.common.files import write_atomically

FILES = Pair("cfg.json", "sae_weights.safetensors")
SPARSITY = "sparsity.safetensors"


def _reads(found: Found) -> SAE:
    tensors = read_safetensors(found.folder / FILES.weights)
    return from_saelens(FILES.read_config(found.folder), tensors)


def _writes(folder: Path, sae: SAE, about: dict[str, Any]) -> None:
    config, tensors = to_saelens(sae)
    FILES.write(folder, config, tensors, about, lambda values, path: save_file(values, path))
    (folder / SPARSITY).unlink(missing_ok=True)  # of an SAE that was here before


def write_density(folder: Path, density: Tensor) -> None:
    """Write the share `(m,)` of inputs on which each latent fires, where SAELens looks for it."""
    sparsity = {"sparsity": log10_density(density).float().cpu()}
    write_atomically(folder / SPARSITY, lambda temporary: save_file(sparsity, temporary))


LAYOUT = Layout(
    name="saelens",
    files=f"{FILES.config} with {FILES.weights}",
    detects=lambda found: found.has(FILES.weights),
    reads=_reads,
    writes=_writes,
    weights=FILES.weights,
)
