"""`circuits explore`: the explorer in the browser."""

from __future__ import annotations

import importlib.util
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import tyro
from rich.console import Console

from apps.cli.commands.scan import STORE
from apps.cli.common import CommandResult, Many, ModelChoice, Session, sae_option
from apps.cli.errors import UsageError
from apps.cli.registry import command
from apps.processes import child_environment, in_child

Opened: TypeAlias = "tuple[str | None, dict[str, str]]"
"""The name of the model to open on, and variables that make it known to the server."""
CRASHES = {-getattr(signal, name, 0) for name in ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL")} - {0}
"""Exit codes of a server that crashed: that neither ended by itself nor was asked to."""
ENOUGH = 20.0
"""Seconds after which a server that crashes is started again: it did run."""


@command(
    group="Models and images", order=50, summary="the circuit explorer in the browser, on your own model and images"
)
@dataclass(frozen=True, kw_only=True)
class Explore(ModelChoice):
    """Open the circuit explorer: a server on this machine alone, and pages in the browser.

    Without a store it opens on the built-in model, and makes a small store for it first. Labels are read only, and jobs
    cannot be started from the browser, unless --allow-write. Nothing leaves the machine, and nothing is downloaded.

    Example:
        circuits explore
        circuits explore --store store --model googlenet-bvlc --images photos --allow-write
        circuits explore --sae parts=saes/parts --sae saes/words --lm models/gpt2
        circuits explore --model mine.py:make --weights w.pth --images photos
        circuits explore --audit audit
        circuits explore --port 8600 --json
    """

    store: Path = STORE
    """Folder of scans, labels and images; made at the first start."""
    model: str | None = None
    """Model to open on; by default the built-in one, or the first of the store. One of your own is given as
    mine.py:make, package.module:make or NAME=mine.py:make, and called after the file, or NAME."""
    sae: Many = ()
    """Folder of an SAE, or NAME=FOLDER; may be repeated. Latents become units of the model that it was trained on."""
    lm: Many = ()
    """Folder of a language model, besides the built-in `tales`; may be repeated."""
    audit: Many = ()
    """Folder that `circuits audit --out` wrote, or NAME=FOLDER; may be repeated. Opens on the model of the first."""
    images: Path | None = None
    """Folder of photographs: scans look at its folders, and concepts are searched in them."""
    allow_write: tyro.conf.FlagCreatePairsOff[bool] = False
    """Let labels be written, circuits kept and jobs started from the browser."""
    port: int = 8501
    """Port of the server, on 127.0.0.1."""
    allow_host: Many = ()
    """Name under which a proxy of yours serves the explorer; may be repeated. All but it and localhost are refused."""

    def run(self, session: Session) -> CommandResult:
        """Serve until interrupted."""
        missing = [name for name in ("streamlit", "plotly") if importlib.util.find_spec(name) is None]
        if missing:
            raise UsageError(f"the explorer needs {' and '.join(missing)}: pip install 'vision-circuits[app]'")
        opened = self._check()
        address = f"http://127.0.0.1:{self.port}"
        print(f"explorer: {address} (Ctrl-C ends it)", file=sys.stderr)
        code = serve(self.command(), self.environment(opened))
        document: dict[str, Any] = {"address": address, "store": str(self.store), "code": code}

        def show(console: Console) -> None:
            console.print("the explorer has ended")

        ended = {-getattr(signal, name, 0) for name in ("SIGINT", "SIGTERM", "SIGHUP")} | {0, 130, 143}
        return CommandResult(document, show, code=0 if code in ended else 1)

    def _check(self) -> Opened:
        """The name of --model, and what makes it known to the server and its jobs, once everything can be opened."""
        if not 0 < self.port < 65536:
            raise UsageError(f"--port is between 1 and 65535, not {self.port}")
        if self.images is not None and not self.images.expanduser().is_dir():
            raise UsageError(f"--images {self.images} is no folder")
        for option, what, given in (("sae", "SAEs", self._saes()), ("audit", "audits", self._audits())):
            names = [name for name, _ in given]
            for name, folder in given:
                if not folder.is_dir():
                    raise UsageError(f"--{option} {folder} is no folder")
                if names.count(name) > 1:
                    raise UsageError(f"two {what} are called {name}: give them names, --{option} NAME={folder}")
        if self.store.expanduser().exists() and not self.store.expanduser().is_dir():
            raise UsageError(f"--store {self.store} is a file; give a folder")
        if self.model is None and not (self.weights is None and self.input is None and self.card is None):
            raise UsageError("--weights, --input and --card go with --model")
        # a wrong name, or weights that are not here, are reported now; the models are not for this process to hold
        return in_child(self._opened) if self.model is not None or self.lm or self.audit else (None, {})

    def _opened(self) -> Opened:
        name: str | None = None
        environment: dict[str, str] = {}
        if self.model is not None:
            from circuits.network.model import load

            name, environment = self.name_and_environment(self.model, self.weights)
            load(name, weights=self.weights)
        elif self.audit:
            name = self._audited()
        for language_model in self.lm:
            from zoo.networks.language import load_language

            load_language(language_model)
        return name, environment

    def _audited(self) -> str | None:
        """The model of the first audit; None where it is damaged, which its page says."""
        from circuits.dataset.audit.removal import read_audit
        from circuits.errors import CircuitsError
        from zoo.registry import get_card

        try:
            model = read_audit(self._audits()[0][1]).model
        except CircuitsError:
            return None
        try:
            get_card(model)
        except CircuitsError as error:
            raise UsageError(
                f"--audit {self.audit[0]} is of {model}, a network of your own: give it, too, with --model"
            ) from error
        return model

    def _weights(self) -> str | None:
        """The weights, wherever the server looks from."""
        if self.weights is None or self.weights == "random":
            return self.weights
        return str(Path(self.weights).expanduser().absolute())

    def _saes(self) -> list[tuple[str, Path]]:
        """Name and folder of each SAE."""
        from circuits.network.address import basis_name

        options = map(sae_option, self.sae)
        return [(name or basis_name(folder), Path(folder).expanduser().absolute()) for name, folder in options]

    def _audits(self) -> list[tuple[str, Path]]:
        """Name and folder of each audit."""
        options = [(name, Path(folder).expanduser().absolute()) for name, folder in map(sae_option, self.audit)]
        return [(name or folder.name, folder) for name, folder in options]

    def command(self) -> list[str]:
        """The command line of the server."""
        return [sys.executable, "-m", "apps.explorer.server.web", str(self.port)]

    def environment(self, opened: Opened | None = None) -> dict[str, str]:
        """The environment of the server: its settings, and where the packages are."""
        from apps.explorer.server.settings import Settings

        if opened is None:
            opened = (None, {}) if self.model is None else self.name_and_environment(self.model, self.weights)
        name, own = opened
        chosen = Settings(
            store=self.store.expanduser().absolute(),
            model=name,
            weights=self._weights(),
            saes=tuple(self._saes()),
            lms=self.lm,
            images=None if self.images is None else self.images.expanduser().absolute(),
            allow_write=self.allow_write,
            allow_hosts=tuple(self.allow_host),
            audits=tuple(self._audits()),
        )
        return child_environment(**chosen.to_environment(), **own)


def serve(command: list[str], environment: dict[str, str]) -> int:
    """Run the server until it ends; a request to end is passed on to it.

    One that crashes after a while (out of memory, an error below Python) is started again, and pages connect to it by
    themselves.
    """
    while True:
        begun = time.monotonic()
        code = _serve_once(command, environment)
        if code not in CRASHES or time.monotonic() - begun < ENOUGH:
            return code
        print(f"the explorer's server ended with {signal.Signals(-code).name}; it is started again", file=sys.stderr)


def _serve_once(command: list[str], environment: dict[str, str]) -> int:
    process = subprocess.Popen(command, env=environment)
    try:
        return process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(timeout=10)
