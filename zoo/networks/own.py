"""Models of the user's own: a Python file that makes one, its weights and its input, as a card.

    mine.py:make                a function, class or instance in a file
    package.module:make         the same in a module that can be imported
    NAME=mine.py:make           under another name than the file's

The code runs when the model is built, never before: a card alone can be listed. It is only ever taken from what the
user names on the command line (or passes to `add`), never from a file of results.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import hashlib
import importlib
import importlib.util
import inspect
import json
import logging
import os
import sys
import tomllib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from zoo.cards import CARDS, Card, WeightsFile, key, register
from zoo.common.reading import parse_json, read_text
from zoo.errors import CircuitsError, ModelError, WeightsError, did_you_mean, in_shell, shorten
from zoo.inputs import InputSpec

log = logging.getLogger(__name__)

VARIABLE = "CIRCUITS_OWN_MODELS"
"""Environment variable through which a command passes the models that it was given to its own processes, as JSON."""
FORMS = "FILE.py:NAME, PACKAGE.MODULE:NAME or CALLED=FILE.py:NAME"
INPUT_EXAMPLE = '--input \'{"size": [96, 128], "channels": 1}\''
_CARD_BYTES = 1 << 24
_KEY_PARTS = 200
"""Parts of a dotted key of TOML; the decoder's work grows with their square, and 50,000 hold it for minutes."""
_KEYS = ("input", "classes", "logits", "output", "axes", "weights")


@dataclass(frozen=True)
class OwnModel:
    """What the user gave to open a model of his own.

    Attributes:
        target: absolute path of a file, or the dotted name of a module.
        attribute: the function, class or instance in it.
        name: the model part of addresses.
        folder: where a module is looked for, besides the usual places.
        weights: absolute path of the weights, or None for those that the model is made with.
        input: fields of `InputSpec`, as JSON; None for those of the card file or the default.
        card: absolute path of a card file, or None for the one beside the file, if there is one.
        output: which output holds the class scores, of networks that give several; None for the card file's.
    """

    target: str
    attribute: str
    name: str
    folder: str
    weights: str | None = None
    input: str | None = None
    card: str | None = None
    output: str | None = None

    @property
    def spec(self) -> str:
        """What `--model` takes."""
        stem = Path(self.target).stem if self.is_file else self.target.rpartition(".")[2]
        stem = unicodedata.normalize("NFC", stem)
        return f"{'' if stem == self.name else f'{self.name}='}{self.target}:{self.attribute}"

    @property
    def options(self) -> list[str]:
        """The options by which another command knows it."""
        given = {name: getattr(self, name) for name in ("input", "card", "output", "weights")}
        named = [word for name, value in given.items() if value is not None for word in (f"--{name}", value)]
        return ["--model", self.spec, *named]

    @property
    def is_file(self) -> bool:
        """Whether the target is a file; else it is a module."""
        return self.target.endswith(".py")


_ADDED: dict[str, OwnModel] = {}
"""What was added, by the key of its name."""


def is_spec(text: str) -> bool:
    """Whether `text` names code, rather than a registered model: those have neither `:` nor `=` in their names."""
    return ":" in text or "=" in text or text.endswith(".py")


def parse(
    spec: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    input: str | None = None,
    card: str | os.PathLike[str] | None = None,
    output: str | None = None,
) -> OwnModel:
    """What `spec` names; nothing is run.

    Raises:
        ModelError: another form, no such file, or nothing of that name in it.
        WeightsError: no such weights file.

    >>> parse("networks.small:make").spec
    'networks.small:make'
    """
    name, equals, location = spec.partition("=")
    if not equals or os.path.isfile(Path(spec if spec.endswith(".py") else spec.rpartition(":")[0]).expanduser()):
        name, location = "", spec  # a folder on the way may have `=` in its name
    target, colon, attribute = location.rpartition(":")
    if not colon and location.endswith(".py"):
        target, attribute = location, ""
    if not target or (not attribute and not target.endswith(".py")):
        raise ModelError(f"--model {shorten(spec)!r} is none of {FORMS}")
    if target.endswith(".py"):
        path = Path(target).expanduser().absolute()
        if not os.path.isfile(path):
            raise ModelError(f"--model {shorten(spec)}: there is no file {shorten(path, 200)}")
        _check_file(path, attribute)
        target, name = str(path), name or path.stem
    name = unicodedata.normalize("NFC", name or target.rpartition(".")[2])
    return OwnModel(
        target,
        attribute,
        name,
        folder=os.getcwd(),
        weights=None if weights is None else str(_existing(weights, "weights file", WeightsError)),
        input=input,
        card=None if card is None else str(_existing(card, "card file", ModelError)),
        output=output,
    )


def _existing(path: str | os.PathLike[str], kind: str, error: type[CircuitsError]) -> Path:
    absolute = Path(path).expanduser().absolute()
    if not os.path.isfile(absolute):
        raise error(f"no {kind} at {shorten(absolute, 200)}")
    return absolute


def _check_file(path: Path, attribute: str) -> None:
    """Refuse a file that is no Python, and a missing name, before any work; nothing is run."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8"), str(path)).body
    except (SyntaxError, UnicodeDecodeError, ValueError, OSError) as error:
        raise ModelError(f"{shorten(path, 200)} cannot be read as Python: {shorten(error, 160)}") from error
    functions = [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef)]
    if not attribute:
        raise ModelError(f"--model {path.name} needs a name in it: {_choices(path, functions)}")


def _choices(path: Path, names: Iterable[str]) -> str:
    specs = [f"{path.name}:{name}" for name in names if not name.startswith("_")]
    return ", ".join(specs[:8]) or "it defines no function and no class"


def add(own: OwnModel) -> Card:
    """Register the card of `own`; one of the same name that was added before is replaced.

    Raises:
        ModelError: its input or card file cannot be read, or its name is that of a model of ours.
    """
    other = f"--model NAME={own.target}:{own.attribute}"
    if key(own.name) in ("tales", "hf"):
        raise ModelError(f"{own.name!r} is the name of a language model: give another, {other}")
    existing = CARDS.get(key(own.name))
    if existing is not None and not existing.own:
        raise ModelError(f"there is a model {existing.name!r} already: give another name, {other}")
    try:
        card = register(card_of(own), replace=True)
    except ModelError as error:
        if "cannot be called" in str(error):
            raise ModelError(f"{error}; {other} gives another name") from None
        raise
    _ADDED[key(own.name)] = own
    return card


def command_line(*words: object, model: str = "") -> str:
    """A command of ours as a shell takes it: quoted, with the options that open a model of the user's own.

    Args:
        words: what follows `circuits`; model: the name of the model that it is about, where there is one.

    >>> command_line("scan", "scenes", "--images", "my photos", model="scenes")
    "circuits scan scenes --images 'my photos'"
    """
    own = _ADDED.get(key(model))
    return in_shell("circuits", *words, *([] if own is None else own.options))


def loading_code(model: str, weights: str | None = None) -> str:
    """Python that loads the model called `model`, for pages of results; it registers the user's own first.

    >>> loading_code("scenes")
    "model = circuits.load('scenes')"
    """
    load = f"model = circuits.load({model!r}{f', weights={weights!r}' if weights else ''})"
    own = _ADDED.get(key(model))
    if own is None:
        return load
    arguments = {name: getattr(own, name) for name in ("weights", "input", "card", "output")}
    options = "".join(f", {name}={value!r}" for name, value in arguments.items() if value is not None)
    return f"from zoo.networks import own\n\nown.add(own.parse({own.spec!r}{options}))\n{load}"


def folders_of(model: str) -> list[str]:
    """Folders of the files that the user's own model called `model` was opened from; of any other model none."""
    own = _ADDED.get(key(model))
    files = [] if own is None else [own.target if own.is_file else None, own.weights, own.card]
    return [str(Path(file).parent) for file in files if file is not None]


def options_of(recorded: Mapping[str, Any], input: Mapping[str, Any]) -> list[str]:
    """The options that open a model of the user's own again, from what a scan or an SAE recorded of it; else none.

    Args:
        recorded: its `own`, and in `weights` and `weights_file` where its weights came from.
        input: the fields of its `InputSpec`, which are given where no card file beside the code has them.
    """
    if not isinstance(recorded.get("own"), str):
        return []
    options, code = ["--model", recorded["own"]], Path(recorded["own"].rpartition("=")[2].rpartition(":")[0])
    beside = [path for suffix in (".card.toml", ".card.json") if (path := code.with_suffix(suffix)).is_file()]
    document = _read_card(beside[0]) if beside else {}
    if not beside:
        default = json.loads(json.dumps(asdict(InputSpec())))
        changed = {key: value for key, value in input.items() if value != default.get(key)}
        options += ["--input", json.dumps(changed)] if changed else []
    if recorded.get("output") is not None and "output" not in document:
        options += ["--output", str(recorded["output"])]
    weights = recorded.get("weights_file")
    if str(recorded.get("weights", "")).startswith("random weights"):
        options += ["--weights", "random"]
    elif isinstance(weights, str) and "weights" not in document:
        options += ["--weights", weights]
    return options


def card_of(own: OwnModel) -> Card:
    """The card of a model of the user's own; none of its code is run."""
    path = Path(own.card) if own.card else _card_beside(own)
    document = {} if path is None else _read_card(path)
    spec = {**document.get("input", {}), **({} if own.input is None else _parsed(own.input))}
    weights = own.weights
    if weights is None and path is not None and "weights" in document:
        weights = str(_existing(path.parent / Path(document["weights"]).expanduser(), "weights file", WeightsError))
    given_input = bool(spec)
    image = input_spec(spec, "--input" if own.input is not None else str(path))
    classes = [] if path is None else _classes(document.get("classes", []), path)
    module_of = _Maker(own)

    def complete(card: Card) -> Card:
        input = card.input if given_input or module_of.input is None else module_of.input
        names = classes or module_of.classes
        output = module_of.output if card.output is None else card.output
        axes = {**module_of.axes, **card.axes}
        return replace(card, input=input, classes=lambda: list(names), output=output, axes=axes)

    return Card(
        name=own.name,
        title=own.name,
        summary=f"Made by {own.spec}.",
        input=image,
        build=module_of,
        weights=None if weights is None else WeightsFile(weights),
        logits=str(document.get("logits", "")),
        output=document.get("output") if own.output is None else own.output,
        axes=document.get("axes", {}),
        classes=lambda: list(classes),
        own=own.spec,
        complete=complete,
        source=own.spec,
    )


def to_environment(models: Iterable[OwnModel]) -> dict[str, str]:
    """The environment in which another process of ours knows `models`."""
    return {VARIABLE: json.dumps([asdict(own) for own in models])}


# -- the input and the card file ------------------------------------------------------------------


def _parsed(text: str) -> dict[str, Any]:
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ModelError(f"--input {shorten(text)} is not JSON ({error}); for example {INPUT_EXAMPLE}") from error
    if not isinstance(value, dict):
        raise ModelError(f"--input {shorten(text)} is no JSON object; for example {INPUT_EXAMPLE}")
    return value


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def input_spec(document: Mapping[str, Any], origin: str) -> InputSpec:
    """`InputSpec` from JSON; numbers stand for lists of one."""
    names = [field.name for field in fields(InputSpec)]
    values = dict(document)
    for name, value in document.items():
        if name not in names:
            hint = did_you_mean(name, names)
            raise ModelError(f"{origin}: an input has no {shorten(name)!r}.{hint} It has {', '.join(names)}")
        if name in ("mean", "std"):
            numbers = value if isinstance(value, list) else [value]
            good, values[name] = bool(numbers) and all(map(_real, numbers)), tuple(numbers)
        elif name == "range":
            good = isinstance(value, list) and len(value) == 2 and all(map(_real, value))
            values[name] = tuple(value) if good else value
        elif name == "size" and isinstance(value, list):
            good, values[name] = 1 <= len(value) <= 3 and all(map(_whole, value)), tuple(value)
        elif name in ("size", "channels") or (name == "resize" and value is not None):
            good = _whole(value)
        else:
            good = name == "resize" or (isinstance(value, str) if name == "order" else _real(value))
        if not good:
            raise ModelError(f"{origin}: the input's {name} cannot be {shorten(json.dumps(value))}")
    try:
        return InputSpec(**values)
    except ModelError as error:
        raise ModelError(f"{origin}: {error}") from error


def _card_beside(own: OwnModel) -> Path | None:
    if not own.is_file:
        return None
    paths = [Path(own.target).with_suffix(suffix) for suffix in (".card.toml", ".card.json")]
    present = [path for path in paths if path.is_file()]
    if len(present) > 1:
        raise ModelError(f"{present[0]} and {present[1].name} both describe the model: keep one, or give --card FILE")
    return present[0] if present else None


def _read_card(path: Path) -> dict[str, Any]:
    try:
        text = read_text(path, most=_CARD_BYTES)
        if path.suffix != ".json" and any(line.split("=")[0].count(".") > _KEY_PARTS for line in text.splitlines()):
            raise ValueError(f"a line has more than {_KEY_PARTS} dots before any =")
        document = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except (OSError, ValueError, RecursionError) as error:  # both decoders raise kinds of ValueError
        raise ModelError(f"the card {shorten(path, 200)} cannot be read: {shorten(error, 160)}") from error
    if not isinstance(document, dict):
        raise ModelError(f"the card {shorten(path, 200)} is no table of {', '.join(_KEYS)}")
    for name in document:
        if name not in _KEYS:
            hint = did_you_mean(name, _KEYS)
            raise ModelError(f"the card {path} has no use for {shorten(name)!r}.{hint} It has {', '.join(_KEYS)}")
    kinds_of = {
        "input": (dict,),
        "classes": (list, str),
        "logits": (str,),
        "output": (str, int),
        "axes": (dict,),
        "weights": (str,),
    }
    for name, kinds in kinds_of.items():
        if name in document and not isinstance(document[name], kinds):
            raise ModelError(f"the card {path}: {name} cannot be {shorten(json.dumps(document[name], default=str))}")
    return document


def _classes(value: list[Any] | str, card: Path) -> list[str]:
    """Class names: listed, or the lines of a text file whose path is relative to the card."""
    if isinstance(value, list):
        if strange := [name for name in value if not isinstance(name, str | int)]:
            raise ModelError(f"the card {card}: {shorten(strange[0])} is no class name")
        return [str(name) for name in value]
    path = _existing(card.parent / Path(value).expanduser(), "file of class names", ModelError)
    try:
        lines = read_text(path, most=_CARD_BYTES).splitlines()
    except (OSError, ValueError) as error:
        raise ModelError(f"the class names {path} cannot be read: {shorten(error, 160)}") from error
    return [line.strip() for line in lines if line.strip()]


# -- the code -------------------------------------------------------------------------------------


class _Maker:
    """Runs the user's code and makes the module; a wrapped model also gives its input, classes, output and axes."""

    def __init__(self, own: OwnModel) -> None:
        self.own = own
        self.input: InputSpec | None = None
        self.classes: list[str] = []
        self.output: str | int | None = None
        self.axes: dict[str, str] = {}

    def __call__(self) -> nn.Module:
        where = f"{Path(self.own.target).name if self.own.is_file else self.own.target}:{self.own.attribute}"
        with _own_code(self.own):
            thing = self._thing()
            instance = isinstance(thing, nn.Module) or _is_wrapped(thing)
            if not instance:
                thing = _called(thing, where)
        if _is_wrapped(thing):
            self.input, self.classes, self.output = thing.input, list(thing.classes), thing.output
            self.axes = thing.axes
            thing = thing.module
        if not isinstance(thing, nn.Module):
            raise ModelError(
                f"{where} gives a {type(thing).__name__}: it must be, or return, a torch.nn.Module or a circuits.Model"
            )
        # weights are loaded into the module, and an instance is used again by whoever loads the model next
        return copy.deepcopy(thing) if instance else thing

    def _thing(self) -> Any:
        module = _imported(self.own)
        if not hasattr(module, self.own.attribute):
            names = [n for n, v in vars(module).items() if getattr(v, "__module__", None) == module.__name__]
            near = did_you_mean(self.own.attribute, names)
            choices = ", ".join(names[:8]) or "no function and no class"
            raise ModelError(f"{self.own.target} has no {shorten(self.own.attribute)!r}.{near} It has {choices}")
        return getattr(module, self.own.attribute)


def _is_wrapped(thing: Any) -> bool:
    """Whether it is a `circuits.Model`, which lies above this floor and so cannot be named here."""
    module, input = getattr(thing, "module", None), getattr(thing, "input", None)
    return isinstance(module, nn.Module) and isinstance(input, InputSpec)


def _called(thing: Any, where: str) -> Any:
    if not callable(thing):
        raise ModelError(
            f"{where} is a {type(thing).__name__}: it must be a function, a class or an instance of torch.nn.Module"
        )
    with contextlib.suppress(ValueError):  # no signature to be had: the call decides
        signature = inspect.signature(thing)
        try:
            signature.bind()
        except TypeError:
            raise ModelError(
                f"{where}{signature} takes arguments: give a function without any, such as `def make(): return …`"
            ) from None
    try:
        return thing()
    except (Exception, SystemExit) as error:
        raise ModelError(f"{where} fails: {_reason(error)}") from error


def _imported(own: OwnModel) -> ModuleType:
    """The user's module, run once for each version of the file."""
    if not own.is_file:
        try:
            return importlib.import_module(own.target)
        except (Exception, SystemExit) as error:
            raise ModelError(f"{own.target} cannot be imported: {_reason(error)}") from error
    path = Path(own.target)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
    name = f"_own_{path.stem}_{hashlib.sha256(own.target.encode() + text).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    module_spec = importlib.util.spec_from_file_location(name, path)
    assert module_spec is not None and module_spec.loader is not None  # the suffix is .py
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[name] = module  # dataclasses and pickle look a class's module up while it is being run
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise ModelError(f"{path} cannot be imported: {_reason(error)}") from error
    return module


def _reason(error: BaseException) -> str:
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    line = "" if frame is None else f" ({Path(frame.tb_frame.f_code.co_filename).name}, line {frame.tb_lineno})"
    return f"{type(error).__name__}: {shorten(error, 160)}{line}"


@contextlib.contextmanager
def _own_code(own: OwnModel) -> Iterator[None]:
    """The file's folder first on the path, as `python FILE` has it; what the code prints goes to stderr."""
    folder = str(Path(own.target).parent) if own.is_file else own.folder
    sys.path.insert(0, folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        with contextlib.suppress(ValueError):
            sys.path.remove(folder)


def _add_from_environment() -> None:
    """Register what the process that started this one was given; a broken one must not hide the zoo."""
    for document in json.loads(os.environ.get(VARIABLE, "[]")):
        try:
            add(OwnModel(**document))
        except (CircuitsError, TypeError):
            log.warning("the model of %s cannot be registered", document, exc_info=True)


_add_from_environment()
