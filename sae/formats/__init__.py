"""Files of SAEs: SAELens's layout is the native one; those of other programs are read, one of them written."""

from __future__ import annotations

from sae.formats.registry import LAYOUTS as LAYOUTS, Layout as Layout, register_layout as register_layout
from sae.formats.save_load import load as load, save as save
