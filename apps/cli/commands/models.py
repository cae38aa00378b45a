"""`circuits models`: the models that can be loaded."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Session
from apps.cli.output.console import table
from apps.cli.registry import command


@command(group="Models and images", order=20, summary="models that can be loaded, and whether their weights are here")
@dataclass(frozen=True, kw_only=True)
class Models(Command):
    """List the models that can be loaded, and whether their weights are here.

    A model's name is the first part of every address: scenes/mixed4a:11. Weights are looked for in the file given
    with --weights, then in the folder $CIRCUITS_WEIGHTS, then in the cache, then fetched where the card knows from
    where. Any torchvision classifier works as torchvision/NAME, and timm's as timm/NAME where timm is installed.

    Example:
        circuits models
        circuits models --match resnet
        circuits models --json | head -20
    """

    match: str | None = None
    """Only models whose name holds this text; also searches torchvision's names."""

    def run(self, session: Session) -> CommandResult:
        """The cards, with where their weights are."""
        from zoo.networks.language import language_names
        from zoo.registry import cards, get_card, model_names, status

        own = cards()
        names = list(own)
        if self.match is not None:
            names = [name for name in model_names() if self.match.lower() in name.lower()]
        rows = []
        for name in names:
            card = own.get(name) or get_card(name)
            there = status(card)
            rows.append(
                {
                    "name": card.name,
                    "title": card.title,
                    "summary": card.summary,
                    "input": {"channels": card.input.channels, "size": list(card.input.shape[1:])},
                    "weights": {"found": there.available, "path": there.path, "how": there.how},
                    "license": card.license,
                    "source": card.source,
                }
            )

        speaking = [name for name in language_names() if self.match is None or self.match.lower() in name.lower()]

        def show(console: Console) -> None:
            if not rows and not speaking:
                console.print(Text(f"no model's name holds {self.match!r}"))
                return
            if rows:
                console.print(table(["model", "what it is", "input", "weights"], [_row(r) for r in rows]))
            if speaking:
                console.print(Text(f"language models here: {', '.join(speaking)}"))
            if self.match is None:
                more = (
                    "and torchvision/NAME (circuits models --match resnet), timm/NAME, circuits.wrap(module) in Python"
                )
                console.print(Text(more, style="dim"))

        return CommandResult({"models": rows, "language_models": speaking}, show)


def _row(row: dict) -> list[object]:
    there = row["weights"]
    status = Text("here: " if there["found"] else "not here: ", style="green" if there["found"] else "yellow")
    height, width = row["input"]["size"]
    return [
        Text(row["name"], style="bold"),
        row["summary"],
        f"{row['input']['channels']}x{height}x{width}",
        status + there["how"],
    ]
