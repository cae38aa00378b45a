"""Files of SAEs: the native layout is SAELens's `cfg.json` and `sae_weights.safetensors`."""

from __future__ import annotations

from sae.formats.native import load, save

__all__ = ["load", "save"]
