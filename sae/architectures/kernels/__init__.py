"""The five operations of a TopK training step, and the fastest way to compute them on each device.

A step needs the encoder's product (`2dm` operations per input). Everything else involves only the k active latents
(`8kd`); dense autograd needs `12dm`. There are three paths:

- `dense`: every product in full, on any device; the oracle of the tests.
- `bags`: for the CPU. The selection works on the product while it is in the cache; the rest are embedding bags.
- `triton`: for the GPU. Kernels over sorted segments, without atomics and without waiting for the host.

`path_of` chooses by a rule, `using` overrides it, `describe` lists the choice for a table of shapes.
"""

from sae.architectures.kernels.backend import Path, Select
from sae.architectures.kernels.dispatch import PATHS, Choice, choose, describe, operations, path_of, using
from sae.architectures.kernels.sparse_pattern import Pattern

__all__ = ["PATHS", "Choice", "Path", "Pattern", "Select", "choose", "describe", "operations", "path_of", "using"]
