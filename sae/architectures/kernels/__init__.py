"""The five operations that a TopK training step is made of, and which way to compute them is the fastest where.

A step needs the encoder's product (`2dm` operations per input) and, of everything else, only what the k active
latents touch (`8kd`); dense autograd does `12dm`. There are three paths:

- `dense`: every product in full, on any device; the oracle of the tests.
- `bags`: the CPU's. The selection works on the product while it is in the cache; the rest are embedding bags.
- `triton`: the GPU's. Kernels over sorted segments, without atomics and without waiting for the host.

`path_of` chooses by a rule, `using` overrides it, `describe` says what was chosen for a table of shapes.
"""

from sae.architectures.kernels.backend import Path, Select
from sae.architectures.kernels.dispatch import PATHS, Choice, choose, describe, operations, path_of, using
from sae.architectures.kernels.sparse_pattern import Pattern

__all__ = ["PATHS", "Choice", "Path", "Pattern", "Select", "choose", "describe", "operations", "path_of", "using"]
