"""Files of SAEs: SAELens's layout is the native one; those of other programs are read, one of them written."""

from __future__ import annotations

from sae.formats.registry import LAYOUTS, Layout, register_layout
from sae.formats.save_load import load, save

__all__ = ["LAYOUTS", "Layout", "load", "register_layout", "save"]
