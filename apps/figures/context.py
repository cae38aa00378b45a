"""What a script works with: the model, the images, and results that several figures share and one computes."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from filelock import FileLock

from apps.images import open_sources
from zoo.common.files import write_text_atomically
from zoo.common.reading import read_json
from zoo.errors import CircuitsError
from zoo.images.sources import Images

if TYPE_CHECKING:
    from circuits.dataset.scan_results import Scan
    from circuits.network.model import Model
    from circuits.visualization import Visualization

Effort = Literal["full", "quick", "test"]
T = TypeVar("T")

PUBLISHED = "inceptionv1"
"""The card of the network that the published unit numbers hold for."""
LANGUAGE = "tales"


@dataclass(frozen=True)
class Settings:
    """What figures are made with.

    Attributes:
        model: its name; weights: file, or None for the default of its card.
        images: what `zoo.images.sources.open_images` takes; without any, figures that need images are not made.
        limit: at most this many images, sampled with the seed.
        effort: "full"; "quick": fewer images and steps; "test": so few that only the script is tested.
        seed, device: as everywhere.
    """

    model: str = "scenes"
    weights: str | None = None
    images: tuple[str, ...] = ()
    limit: int | None = None
    effort: Effort = "full"
    seed: int = 0
    device: str | None = None

    @property
    def digest(self) -> str:
        """Digest of everything that determines the figures, except the contents of files."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:16]


class FigureContext:
    """What a script works with.

    Attributes:
        settings: of the run; effort, seed: of these settings.
        shared: folder of results that figures share.
    """

    def __init__(self, settings: Settings, shared: Path, model: Model | None = None) -> None:
        self.settings = settings
        self.effort: Effort = settings.effort
        self.seed = settings.seed
        self.shared = shared
        self._model = model

    @property
    def model(self) -> Model:
        """The network."""
        if self._model is None:
            from circuits.network.model import load

            self._model = load(self.settings.model, weights=self.settings.weights, device=self.settings.device)
        return self._model

    @property
    def published(self) -> bool:
        """Whether published unit numbers hold for this network. On any other network none may be printed."""
        return self.settings.model == PUBLISHED

    @cached_property
    def images(self) -> Images:
        """The images; those without labels get them from their file names, where these contain class names.

        Raises:
            NotApplicable: the settings have none, and the model brings none.
        """
        sources = self.settings.images or (("scenes:500",) if self.settings.model == "scenes" else ())
        if not sources:
            raise NotApplicable("needs images: --images FOLDER")
        most = [n for n in (self.settings.limit, self.size(None, 300, 90)) if n is not None]
        images = open_sources(sources, min(most, default=None), self.seed)
        return _labeled(images, self.model.classes) if images.labels is None and self.model.classes else images

    def size(self, full: T, quick: T, test: T) -> T:
        """One of three values, by the effort of the settings."""
        return {"full": full, "quick": quick, "test": test}[self.effort]

    def layer(self, *names: str) -> str:
        """The first of these layers that the model has.

        Raises:
            NotApplicable: it has none of them.
        """
        for name in names:
            if name in self.model.layers:
                return name
        raise NotApplicable(f"needs a layer called {' or '.join(names)}, which {self.model.name} does not have")

    @cached_property
    def scan(self) -> Scan:
        """The scan of all units on the images, in a store that the figures share."""
        from circuits.dataset.scan import scan

        with self.lock("scan"):
            return scan(self.model, self.images, self.shared / "scan", seed=self.seed)

    def visualize(self, units: Sequence[str], *, steps: int | None = None, **options: Any) -> list[Visualization]:
        """Feature visualizations of units, cached: `circuits.visualize` into a folder of its own.

        Args:
            units: addresses, or whole layers.
            steps: by default 256, 96 or 8 by effort.
            **options: of `circuits.visualize`.
        """
        from circuits.visualization.sweeps.sweep import sweep

        options = {"steps": steps or self.size(256, 96, 8), "seed": self.seed, **options}
        if self.effort == "test":
            options.setdefault("size", 48)
        name = f"renders-{_digest([list(units), options, self.model.digest])}"
        with self.lock(name):
            return sweep(self.model, list(units), self.shared / name, **options)

    def cached(self, name: str, compute: Callable[[], Any], **key: Any) -> Any:
        """A result ready for JSON, computed by the first figure that needs it and read from a file by the others.

        Args:
            name: of the result, for its file.
            compute: returns it.
            **key: everything that it depends on beside the settings.
        """
        file = self.shared / f"{name}-{_digest([self.settings.digest, key])}.json"
        with self.lock(file.stem):
            try:
                return read_json(file)
            except (OSError, ValueError):  # not there, or damaged
                text = json.dumps(compute())
                write_text_atomically(file, text)
                return json.loads(text)

    def lock(self, name: str) -> FileLock:
        """A lock that one process holds at a time, while it computes a shared result."""
        self.shared.mkdir(parents=True, exist_ok=True)
        return FileLock(self.shared / f".{name}.lock")


def _labeled(images: Images, classes: Sequence[str]) -> Images:
    """Images with labels by their file names; those without a class in the name get the class "unknown"."""
    from zoo.images.classes import labels_by_name

    labels = labels_by_name(images.ids, classes)
    if labels is None:
        return images
    labeled = copy.copy(images)
    labeled.classes = [*classes, "unknown"]
    labeled.labels = [label if label >= 0 else len(classes) for label in labels]
    return labeled


def _digest(of: Any) -> str:
    return hashlib.sha256(json.dumps(of, sort_keys=True, default=str).encode()).hexdigest()[:16]


class NotApplicable(CircuitsError):
    """The figure cannot be made of this model with these images; the message says what is missing."""
