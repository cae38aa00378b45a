"""Dictionary learning on activations: the room where sparse autoencoders (SAEs) will live.

It will hold the architectures, their training, metrics and file formats, and the adapters that read
activations from vision and language models. What is learnt here satisfies the `Basis` protocol of
`circuits`, so that a latent of an SAE is a unit like any other. This version exports nothing yet.
"""

from __future__ import annotations

__all__: list[str] = []
