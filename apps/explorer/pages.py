"""The pages: every script in `apps/explorer/views/` is one, and declares itself.

A page is a script that Streamlit runs from top to bottom at every visit and every click. It reads widgets, calls the
library, and draws, in under 150 lines. Its menu entry is a line of the script, made of literals:

    PAGE = Entry("Silent units", ":material/volume_off:", "units that are never active", order=95)

The line is read from the source, since importing the script would run it. The script starts with
`at = page_frame.location()`, the model, layer or unit that the address names, and calls `page_frame.header`, which puts
title, link, Python code and exports on top. Everything that changes what a page shows has a name in its address:
widgets with `key=NAME, bind="query-params"`.

(The folder is not called `pages/`: Streamlit runs the scripts of a folder of that name beside its entry by themselves,
without the frame around them and its checks.)
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, replace
from pathlib import Path

from zoo.errors import CircuitsError

FOLDER = Path(__file__).parent / "views"


@dataclass(frozen=True)
class Entry:
    """The menu entry of a page.

    Attributes:
        title: in the menu; icon: one of Streamlit's; about: what the page shows, in a few words.
        order: position in the menu, ascending; the first page is the one that the explorer opens on.
        file: the script; its name without suffix is the page's name in addresses.
    """

    title: str
    icon: str
    about: str
    order: int
    file: Path = Path()

    @property
    def name(self) -> str:
        """Name in addresses and in `links.go`."""
        return self.file.stem


def entry_of(file: Path) -> Entry:
    """The entry that a script declares as `PAGE = Entry(...)`, read without running it.

    Raises:
        CircuitsError: it declares none, or one that is not made of literals.
    """
    for node in ast.parse(file.read_text(encoding="utf-8"), str(file)).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "PAGE" and isinstance(node.value, ast.Call):
            try:
                values = [ast.literal_eval(value) for value in node.value.args]
                keywords = {word.arg or "": ast.literal_eval(word.value) for word in node.value.keywords}
                return replace(Entry(*values, **keywords), file=file)
            except (ValueError, TypeError) as error:
                raise CircuitsError(f"PAGE of {file} is not an Entry of literals: {error}") from error
    raise CircuitsError(f'{file} is no page: it needs a line like PAGE = Entry("Title", ":material/home:", "...", 10)')


def entries(folder: Path = FOLDER) -> dict[str, Entry]:
    """The pages of a folder by name, in the order of the menu."""
    declared = [entry_of(file) for file in folder.glob("*.py") if file.name != "__init__.py"]
    return {entry.name: entry for entry in sorted(declared, key=lambda entry: (entry.order, entry.name))}


PAGES = entries()
