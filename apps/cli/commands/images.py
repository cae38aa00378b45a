"""`circuits images`: images to look at, with everything that is known of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar, Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Session
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.cli.registry import command


@command(group="Models and images", order=40, summary="render labeled scenes into a folder, to trace and search with")
@dataclass(frozen=True, kw_only=True)
class DrawImages(Command):
    """Draw labeled scenes into a folder: PNGs, and a manifest with the class and the parts' boxes of each.

    The scenes are what the model `scenes` was trained on: cars, houses, dogs and more, made of known parts, and the
    same parts in wrong arrangements. The folder can be given to --images, --positive and --negative of every
    command; so can scenes:500, which draws the same images on the fly. The same seed draws the same images.

    Example:
        circuits images scenes --n 500 --out scenes500
        circuits trace scenes/mixed4a:11 --images scenes500
    """

    source: tyro.conf.Positional[Literal["scenes"]]
    """What to draw: scenes."""
    n: int = 500
    """How many; each class in turn."""

    keeps_out: ClassVar[bool] = True
    files: ClassVar[tuple[str, ...]] = ("manifest.json", "*.png")

    def known(self) -> Iterable[str]:
        """The images that were drawn there."""
        from zoo.images.manifest import drawn_files

        return () if self.out is None else drawn_files(self.out)

    def run(self, session: Session) -> CommandResult:
        """Draw them."""
        from zoo.images.manifest import export_scenes, read

        if self.out is None:
            raise UsageError("images needs a folder to draw into: --out DIR")
        path = export_scenes(self.n, self.out, self.seed)
        described = read(path)
        counts = Counter(entry.label for entry in described.entries) if described is not None else Counter()
        document = {"folder": path.parent, "manifest": path, "count": self.n, "seed": self.seed, "classes": counts}

        def show(console: Console) -> None:
            console.print(Text(f"{self.n} scenes in {path.parent}, described in {path.name}"))
            console.print(table(["class", "images"], sorted(counts.items()), right=" r"))

        return CommandResult(document, show)
