"""What all commands share: their options, and the result they return.

Nothing here imports torch before it is needed, so that help stays quick.
"""

from __future__ import annotations

import json
import os
import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import tyro
from rich.console import Console

from apps.cli.errors import UsageError
from apps.cli.output.console import Report, progress_bar
from apps.cli.output.folder import Outputs
from apps.images import open_sources
from zoo.errors import in_shell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from circuits.network.address import Unit
    from circuits.network.model import Model
    from zoo.images.sources import Images

SCHEMA = 1
Many = tyro.conf.UseAppendAction[tuple[str, ...]]
"""An option that may be given several times."""
DESCRIBES_OWN = "--input, --card and --output describe a model of your own: give it, --model FILE.py:NAME"


@dataclass(frozen=True)
class CommandResult:
    """What a command returns.

    Attributes:
        document: goes to stdout with `--json`, and into `<command>.json` of `--out`.
        show: prints it for people.
        write: further files for `--out`, written into the folder given.
        code: exit code.
        named: file name of the document; empty when `write` writes it itself.
    """

    document: dict[str, Any]
    show: Callable[[Console], None]
    write: Callable[[Path], None] | None = None
    code: int = 0
    named: str | None = None


@dataclass(frozen=True)
class Session:
    """The run of one command: its command line as typed, and how it reports progress."""

    invocation: str

    def progress(self, what: str) -> AbstractContextManager[Report | None]:
        """A progress bar on stderr for work over two seconds; the value is called with (done, total).

        None where stderr is no terminal.
        """
        return progress_bar(what)


@dataclass(frozen=True, kw_only=True)
class Command(ABC):
    """Options of every command."""

    out: Path | None = None
    """Folder to write the results into; made if need be. What it holds of the same command is completed or replaced."""
    overwrite: tyro.conf.FlagCreatePairsOff[bool] = False
    """With --out: also replace files of the same name that circuits did not write, or that were changed since."""
    seed: int = 0
    """Seed of everything random: the same seed gives the same numbers."""
    device: str | None = None
    """cpu, cuda, cuda:1 or mps; by default the best there is."""
    json: bool = False
    """Print one JSON document on stdout instead of tables."""
    debug: bool = False
    """Show tracebacks and debug messages."""

    keeps_out: ClassVar[bool] = False
    """Whether the command writes all of `out` itself, its document too."""
    fills_out: ClassVar[bool] = False
    """Whether the command writes files of `out` itself, before it ends."""
    files: ClassVar[tuple[str, ...]] = ()
    """Names of what the command writes into `out` besides its document; patterns, as `Path.glob` takes them."""

    def outputs(self) -> Outputs:
        """What the command writes into `out`."""
        return Outputs(self.files, frozenset(self.known()), self.overwrite, getattr(self, "replace", False))

    def known(self) -> Iterable[str]:
        """Names of files in `out` that carry a mark of ours, such as those that the index of a sweep names."""
        return ()

    def check_least(self, *names: str, least: int = 1) -> None:
        """Refuse options below `least`; those without a value are not checked.

        Raises:
            UsageError: the first of them.
        """
        for name in names:
            value = getattr(self, name)
            if value is not None and value < least:
                raise UsageError(f"--{name.replace('_', '-')} is at least {least}, not {value}")

    def begin(self) -> None:  # noqa: B027 (most commands have nothing to do here)
        """Called before anything else: registers models that the options bring."""

    @abstractmethod
    def run(self, session: Session) -> CommandResult:
        """Do the work."""


Own = Annotated[tuple[str, ...], tyro.conf.arg(name="model"), tyro.conf.UseAppendAction]


@dataclass(frozen=True, kw_only=True)
class ModelOptions(Command):
    """Options of commands that load a model."""

    own: Own = ()
    """A model of your own: mine.py:make, package.module:make or NAME=mine.py:make, where make is a function without
    arguments, a class or an instance. It is called after the file, or NAME: mine/layer3:7. May be repeated."""
    input: str | None = None
    """How images are fed to that model, as JSON: {"size": [96, 128], "channels": 1, "mean": 0.5, "std": 0.25}."""
    card: Path | None = None
    """File with its input, classes, logits, output and weights.
    By default mine.card.toml or mine.card.json beside it."""
    output: str | None = None
    """Which output of that model holds the class scores, where it gives several: `out`, 0 or heads.1."""
    weights: str | None = None
    """Weights file (.safetensors, .pth, .pb), or `random` for an untrained net.
    By default where the model's card looks."""
    sae: Many = ()
    """Folder of an SAE trained on the model, whose latents become units: LAYER~FOLDER:0, or with NAME=FOLDER
    LAYER~NAME:0. May be repeated."""

    def begin(self) -> None:
        """Register the models of --model."""
        described = (self.input, self.card, self.output) != (None, None, None)
        if not self.own:
            check_described(described)
            return
        if len(self.own) > 1 and described:
            raise UsageError(
                "--input, --card and --output go with one --model; give the others a card file beside them"
            )
        from zoo.networks import own

        for spec in self.own:
            own.add(own.parse(spec, input=self.input, card=self.card, output=self.output))

    def follow_up(self, *words: object) -> str:
        """A further command on the same model, as a shell takes it; `words` are what follows `circuits`."""
        options = options_for("--model", self.own)
        for option in ("input", "card", "output", "weights"):
            value = getattr(self, option)
            options += [f"--{option}", str(value)] if value is not None else []
        if any("~" in str(word) for word in words):
            options += options_for("--sae", self.sae)
        return in_shell("circuits", *words, *options)

    def load(self, name: str) -> Model:
        """The model called `name`, with the SAEs that were named."""
        from circuits.network.model import load

        check_known(name, getattr(self, "store", None))
        model = load(name, weights=self.weights, device=self.device)
        if self.sae:
            from sae.data.attach import attach_folder

            for name_given, folder in map(sae_option, self.sae):
                attach_folder(model, folder, name_given)
        from apps.cli.output.completion.known import remember

        remember(model)
        return model

    def units_of(self, addresses: Sequence[str]) -> tuple[Model, list[Unit]]:
        """The one model of some addresses, and the units or layers in it."""
        from circuits.network.address import Unit, split_class

        units = [Unit.parse(split_class(address)[0]) for address in addresses]
        names = dict.fromkeys(str(unit.model) for unit in units if unit.model is not None)
        if len(names) > 1:
            raise UsageError(f"give units of one model at a time, not of {' and '.join(names)}")
        model, _ = self.address_of(addresses[0])
        units = [model.addressed(address) for address in addresses]
        return model, [model.resolve(replace(unit, model=model.name)) for unit in units]

    def address_of(self, address: str) -> tuple[Model, Unit]:
        """The model that an address names, and the unit or layer in it."""
        from circuits.errors import AddressError, shorten
        from circuits.network.address import Unit, split_class

        unit = Unit.parse(split_class(address)[0])
        if unit.model is None:
            raise AddressError(
                f"{shorten(address)!r} does not name its model: write scenes/{shorten(unit)}, for example"
            )
        model = self.load(unit.model)
        unit = model.addressed(address)
        return model, model.resolve(unit if model.name == unit.model else replace(unit, model=model.name))


def check_described(described: bool) -> None:
    """Refuse options that describe a model of the user's own where none is given."""
    if described:
        raise UsageError(DESCRIBES_OWN)


@dataclass(frozen=True, kw_only=True)
class ModelChoice(Command):
    """Options of commands whose `--model` takes a registered model as well as FILE.py:NAME."""

    weights: str | None = None
    """Weights file of the model; by default where its card looks."""
    input: str | None = None
    """How images are fed to a model of your own, as JSON: {"size": [96, 128], "channels": 1}."""
    card: Path | None = None
    """File with its input, classes, logits, output and weights.
    By default mine.card.toml or mine.card.json beside it."""
    output: str | None = None
    """Which output of that model holds the class scores, where it gives several: `out`, 0 or heads.1."""

    def name_and_environment(self, model: str, weights: str | None) -> tuple[str, dict[str, str]]:
        """The name that `model` gives; one of the user's own is registered, with `weights`.

        The environment makes it known to processes that this one starts.

        Raises:
            UsageError: an input or a card for a registered model. ModelError: the file, card or input cannot be read.
        """
        from zoo.networks import own

        if not own.is_spec(model):
            check_described((self.input, self.card, self.output) != (None, None, None))
            return model, {}
        parsed = own.parse(model, weights=weights, input=self.input, card=self.card, output=self.output)
        own.add(parsed)
        return parsed.name, own.to_environment([parsed])


@contextmanager
def in_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Processes that are started meanwhile get `variables`."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


def check_known(name: str, store: Path | None, card: object = None) -> None:
    """Refuse a model of the user's own that was not given, with what `--model` takes where its scan or SAE tells.

    Args:
        name: of the model; store: of its scan; card: what the file of an SAE keeps of it.

    Raises:
        ModelError: no model of that name.
    """
    from zoo.errors import ModelError
    from zoo.registry import get_card

    try:
        get_card(name)
    except ModelError as error:
        from circuits.dataset.scan_store import own_model_options
        from zoo.networks import own

        options = own.options_of(card, card.get("input", {})) if isinstance(card, dict) else []
        options = options or ([] if store is None else own_model_options(store, name))
        if not options:
            raise ModelError(f"{error}; a model of your own is given with --model FILE.py:NAME") from None
        raise ModelError(
            f"{name} is a model of your own, whose code is not run unasked: give {shlex.join(options)}"
        ) from None


def options_for(option: str, values: Sequence[str]) -> list[str]:
    """An option that is given once for each value."""
    return [word for value in values for word in (option, value)]


def sae_option(option: str) -> tuple[str | None, str]:
    """Name and folder of `--sae NAME=FOLDER` or `--sae FOLDER`; a folder that is there may have `=` in its name."""
    name, equals, folder = option.partition("=")
    if not equals or Path(option).expanduser().is_dir():
        return None, option
    return name or None, folder


OF_SCENES = ("scenes", "scenes-vit", "scenes-labels")
"""Models that were trained on drawn scenes, which are therefore their default images."""


@dataclass(frozen=True, kw_only=True)
class ImageOptions(ModelOptions):
    """Options of commands that need images."""

    images: Many = field(default=())
    """Images: a folder, an image, a manifest of `circuits images`, or scenes:500 (drawn on the fly).
    May be repeated. By default scenes:500 for models of scenes."""
    limit: int | None = None
    """At most so many images, drawn at random with --seed."""

    def open_images(self, model: str) -> Images:
        """The chosen images."""
        if not self.images and model not in OF_SCENES:
            raise UsageError(f"{model} needs images: --images FOLDER (or --images scenes:500)")
        return open_sources(self.images or ("scenes:500",), self.limit, self.seed)

    def counterfactuals(self, against: str | None) -> Images | None:
        """The counterfactual image of each of the chosen images, from the folder of --against.

        Raises:
            UsageError: there are not as many as images.
        """
        if against is None:
            return None
        if self.limit is not None:  # chosen by number among as many
            counts = [len(open_sources(s, None, self.seed)) for s in ((against,), self.images or ("scenes:500",))]
            if counts[0] != counts[1]:
                raise UsageError(f"--against takes a counterfactual for each image: got {counts[0]} for {counts[1]}")
        return open_sources((against,), self.limit, self.seed)

    def counterfactuals_code(self, against: str) -> str:
        """Python that opens them."""
        return f"open_images({against!r}, limit={self.limit}, seed={self.seed})" if self.limit else repr(against)

    @property
    def image_options(self) -> list[str]:
        """The options by which another command takes the same images."""
        return [*options_for("--images", self.images), *([] if self.limit is None else ["--limit", str(self.limit)])]

    @property
    def images_code(self) -> str:
        """Python that opens them: `open_images('photos', limit=100, seed=0)`."""
        source = self.images[0] if len(self.images) == 1 else list(self.images) or "scenes:500"
        limit = f", limit={self.limit}, seed={self.seed}" if self.limit is not None else ""
        return f"open_images({source!r}{limit})"


def loading_code(model: str, weights: str | None = None) -> str:
    """Python that loads a model as the command did."""
    from zoo.networks import own

    return own.loading_code(model, weights)


@contextmanager
def resumable(out: Path | None) -> Iterator[None]:
    """Ctrl-C reports what is finished in a folder that the same command goes on with."""
    try:
        yield
    except KeyboardInterrupt:
        if out is None or not (out / "index.json").is_file():
            raise
        message = f"interrupted: what is finished is kept in {out}, and the same command goes on"
        raise KeyboardInterrupt(message) from None


def document_text(command: str, document: Mapping[str, Any]) -> str:
    """The text of a command's JSON document."""
    from zoo.common.results import plain

    whole = plain({"schema": SCHEMA, "command": command, **document})
    return json.dumps(whole, indent=1, allow_nan=False, ensure_ascii=False)


def figures(**drawn: Callable[[], Figure]) -> Callable[[Path], None]:
    """What writes each figure as NAME.png into the folder of `--out`; they are drawn only then."""

    def write(folder: Path) -> None:
        from circuits.plot import save_figure

        for name, draw in drawn.items():
            save_figure(draw(), folder / f"{name}.png")

    return write


def reporting(report: Report | None) -> dict[str, Any]:
    """The `progress=` of a function of the library: our bar, or nothing where none is shown."""
    return {} if report is None else {"progress": report}
