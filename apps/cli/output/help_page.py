"""`circuits --help`: what it is for, and its commands by group."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata

from rich.table import Table
from rich.text import Text

from apps.cli.output.console import stdout
from apps.cli.registry import COMMANDS, Entry

_ABOUT = """\
Find out how a trained network computes: which units activate a unit, by which weights, and how much of its
behavior they explain.

Everything has one address, model/layer:unit[@y,x], for example scenes/mixed4a:11 or scenes/mixed4a:11@3,5.\
"""

_EXAMPLES = """\
circuits demo                                         trace a car detector, in one go
circuits layers scenes                                list the layers
circuits find scenes --concept car                    find the car detector
circuits trace scenes/mixed4a:11 --out report         trace its circuit\
"""

_COMMON = """\
Every command takes --out DIR (results as files), --json (one JSON document on stdout, messages on stderr),
--seed, --device and --help. Exit codes: 0 done, 2 bad input (one line gives the reason), 130 interrupted, 1 else.\
"""


def show(only: str | None = None) -> None:
    """Print the overview, or the commands under one name, such as `sae`."""
    console = stdout()
    if only is not None:
        console.print(Text(f"circuits {only} COMMAND [OPTIONS]", style="bold"), "\n")
        console.print(_grid({n: e for n, e in COMMANDS.items() if n.startswith(f"{only} ")}))
        return
    console.print(Text("circuits COMMAND [OPTIONS]", style="bold"), "\n")
    console.print(Text(_ABOUT))
    for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
        console.print()
        console.print(Text(group, style="bold"))
        console.print(_grid({n: e for n, e in COMMANDS.items() if e.group == group}))
    console.print()
    console.print(Text("Examples", style="bold"))
    for line in _EXAMPLES.splitlines():
        command, gap, what = line.partition("   ")
        console.print(Text.assemble("  ", (command, "cyan"), gap, what))
    console.print()
    console.print(Text(_COMMON))


def _grid(commands: Mapping[str, Entry]) -> Table:
    grid = Table.grid(padding=(0, 2))
    for name, entry in commands.items():
        grid.add_row("", Text(name, style="cyan"), Text(entry.summary))
    return grid


def show_version() -> None:
    """Print the installed version."""
    try:
        version = metadata.version("vision-circuits")
    except metadata.PackageNotFoundError:
        version = "not installed, run from its sources"
    stdout().print(Text(f"vision-circuits {version}"))
