"""`circuits --help`: what the command is for, and its commands in the order in which one meets them."""

from __future__ import annotations

from importlib import metadata

from rich.table import Table
from rich.text import Text

from apps.cli.console import stdout
from apps.cli.registry import COMMANDS

_ABOUT = """\
Take a trained network apart and see how it computes: which units make a unit fire, by which weights,
and how much of its behaviour they explain.

Everything has one address, model/layer:unit[@y,x], for example scenes/mixed4a:11 or scenes/mixed4a:11@3,5.\
"""

_EXAMPLES = """\
circuits demo                                         a car detector, taken apart, in one go
circuits layers scenes                                what can be looked at
circuits find scenes --concept car                    which unit is the car detector?
circuits trace scenes/mixed4a:11 --out report         what is it made of?\
"""

_COMMON = """\
Every command takes --out DIR (results as files), --json (one JSON document on stdout, messages on stderr),
--seed, --device and --help. Exit codes: 0 done, 2 bad input (one line says why), 1 anything else.\
"""


def show() -> None:
    """Print the overview."""
    console = stdout()
    console.print(Text("circuits COMMAND [OPTIONS]", style="bold"), "\n")
    console.print(Text(_ABOUT))
    for group in dict.fromkeys(entry.group for entry in COMMANDS.values()):
        console.print()
        console.print(Text(group, style="bold"))
        grid = Table.grid(padding=(0, 2))
        for name, entry in COMMANDS.items():
            if entry.group == group:
                grid.add_row("", Text(name, style="cyan"), Text(entry.what))
        console.print(grid)
    console.print()
    console.print(Text("Examples", style="bold"))
    for line in _EXAMPLES.splitlines():
        command, gap, what = line.partition("   ")
        console.print(Text.assemble("  ", (command, "cyan"), gap, what))
    console.print()
    console.print(Text(_COMMON))


def show_version() -> None:
    """Print the installed version."""
    try:
        version = metadata.version("vision-circuits")
    except metadata.PackageNotFoundError:
        version = "not installed, run from its sources"
    stdout().print(Text(f"vision-circuits {version}"))
