"""`circuits completion`: what makes a shell complete commands, options, models and layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Session
from apps.cli.output.completion.scripts import SCRIPTS
from apps.cli.registry import command


@command(group="Installation", order=30, summary="let bash, zsh or fish complete commands, options, models and layers")
@dataclass(frozen=True, kw_only=True)
class Completion(Command):
    """Print the script with which a shell completes commands, options, models and layers when Tab is pressed.

    It is read at the start of a shell: `source <(circuits completion bash)` in ~/.bashrc, the same with zsh in
    ~/.zshrc, and `circuits completion fish | source` in ~/.config/fish/config.fish. Layers are completed for the
    models that come with a card, and for your own once they were loaded.

    Example:
        circuits completion bash
    """

    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """The shell."""

    def run(self, session: Session) -> CommandResult:
        """The script."""
        script = SCRIPTS[self.shell]

        def show(console: Console) -> None:
            console.print(Text(script), end="", soft_wrap=True)

        return CommandResult({"shell": self.shell, "script": script}, show)
