"""`circuits doctor`: what is installed, what is missing, and the command that fixes it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.text import Text

from apps.cli.common import Command, CommandResult, Session
from apps.cli.doctor_checks import Finding, extras, folders, kernels, python, torch_and_devices, weights
from apps.cli.output.console import table
from apps.cli.registry import command


@command(group="Installation", order=20, summary="what is installed, what is missing, and the command that fixes it")
@dataclass(frozen=True, kw_only=True)
class Doctor(Command):
    """Say what is installed, which devices there are, where weights are, and what is missing.

    Every missing thing comes with the command that fixes it. Nothing is downloaded and nothing is changed. The exit
    code is 1 when something is broken; optional things that are merely missing do not count.

    Example:
        circuits doctor
        circuits doctor --json
    """

    def run(self, session: Session) -> CommandResult:
        """Look at everything, change nothing."""
        findings = [
            *python(),
            *torch_and_devices(self.device),
            *kernels(self.device),
            *extras(),
            *weights(),
            *folders(),
        ]
        broken = [f for f in findings if f.state == "broken"]
        document: dict[str, Any] = {
            "healthy": not broken,
            "findings": [f.describe() for f in findings],
            "environment": {
                name: os.environ.get(name) for name in ("CIRCUITS_WEIGHTS", "CIRCUITS_HOME", "CIRCUITS_DATA")
            },
        }

        def show(console: Console) -> None:
            for group in dict.fromkeys(f.group for f in findings):
                console.print(Text(group, style="bold"))
                rows = [_row(f) for f in findings if f.group == group]
                console.print(table(["", "check", "result", "fix"], rows))
                console.print()
            missing = sum(f.state == "missing" for f in findings)
            verdict = f"{len(broken)} broken" if broken else "all that is needed is here"
            console.print(Text(f"{verdict}; {missing} optional things are missing", style="red" if broken else "green"))

        return CommandResult(document, show, code=1 if broken else 0)


def _row(finding: Finding) -> list[object]:
    marks = {"ok": Text("ok", "green"), "missing": Text("--", "yellow"), "broken": Text("!!", "bold red")}
    return [marks[finding.state], finding.name, finding.detail, finding.fix]
