"""Files of SAEs: the native layout is SAELens's; those of other programs are read, one of them written."""

from __future__ import annotations

from sae.formats.registry import LAYOUTS, load, save

__all__ = ["LAYOUTS", "load", "save"]
