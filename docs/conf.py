"""Sphinx: the guides are its pages, the API reference is built from the docstrings. `make docs`."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

project = "vision-circuits"
author = "the vision-circuits developers"
version = release = installed("vision-circuits")

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4
exclude_patterns = ["images"]
nb_execution_mode = "off"  # notebooks are committed with outputs: python -m tools.notebooks
# Fields of several results share a name. Links to files above docs/ are checked by tests/test_docs.py.
suppress_warnings = ["config.cache", "ref.python", "myst.xref_missing"]
nitpicky = False

# Docstrings are plain text with `code` in single backticks and Google's section names.
default_role = "code"
napoleon_use_ivar = True
napoleon_preprocess_types = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": False, "undoc-members": False}
python_maximum_signature_line_length = 100
add_module_names = False

html_theme = "furo"
html_title = "vision-circuits"
html_copy_source = False
html_extra_path = ["../llms.txt"]
html_show_sourcelink = False
