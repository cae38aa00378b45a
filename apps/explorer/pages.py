"""The pages. A new one is a line here and a file in `apps/explorer/views/`.

(Not `pages/`: of a folder of that name beside its entry Streamlit runs scripts by themselves, without the frame around
them and what it guards, for whoever comes first by a link.)

A page is a script that Streamlit runs from top to bottom at every visit and every click. It reads widgets, calls the
library, and draws: under 150 lines. It starts with `at = frame.opened()`, which says what its address means, and ends;
`frame.show` puts its title, its link, its Python and its exports on top. Everything that changes what it shows has a
name in its address: widgets with `key=NAME, bind="query-params"`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "views"


@dataclass(frozen=True)
class Entry:
    """A page.

    Attributes:
        name: in its address and in `links.go`; title: in the menu; icon: one of Streamlit's.
        what: it shows, in a few words.
    """

    name: str
    title: str
    icon: str
    what: str

    @property
    def file(self) -> Path:
        """Its script."""
        return FOLDER / f"{self.name}.py"


PAGES: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry("home", "Home", ":material/home:", "what is loaded, and where to begin"),
        Entry("layer", "Layer", ":material/grid_view:", "all units of a layer"),
        Entry("unit", "Unit", ":material/center_focus_strong:", "one unit: what it answers to, reads and feeds"),
        Entry("circuit", "Circuit", ":material/account_tree:", "a unit traced back through the layers"),
        Entry("steering", "Steering", ":material/tune:", "units turned up and down, and what follows"),
        Entry("image", "Image", ":material/image_search:", "one picture taken apart"),
        Entry("superposition", "Superposition", ":material/hub:", "toy models, trained while you watch"),
        Entry("sae", "SAE", ":material/blur_on:", "a sparse autoencoder: its latents, and channels against them"),
        Entry("language", "Language", ":material/notes:", "a language model: what its latents answer to, and steering"),
        Entry("search", "Search", ":material/search:", "units by name, address or concept"),
        Entry("jobs", "Jobs", ":material/pending_actions:", "scans and pictures, made in the background"),
    )
}
