"""Dictionary learning on activations: the room where sparse autoencoders (SAEs) will live.

It will hold the architectures, their training, metrics and file formats, and the adapters that read
activations from vision and language models. What is learnt here satisfies the `Basis` protocol of
`circuits`, so that a latent of an SAE is a unit like any other. So far it has toy models of superposition, and
the geometry of any set of directions.
"""

from __future__ import annotations

from sae import superposition
from sae.superposition import geometry

__all__ = ["geometry", "superposition"]
