"""The site of an SAE, by address: a layer of a CNN, or a hook point of a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apps.cli.common import Many, ModelOptions, check_known
from apps.cli.errors import UsageError
from apps.cli.output.console import table
from apps.images import open_sources

if TYPE_CHECKING:
    from sae.data.activations import Sampling
    from sae.data.site import Site
    from sae.evaluation.metrics import Reconstruction

DEFAULTS = {"scenes": "scenes:500", "scenes-vit": "scenes:500", "scenes-labels": "scenes:500", "tales": "tales:2000"}
"""Default inputs of models that come with a generator."""


BETWEEN = ".."
"""Stands between the two layers of a transcoder's address."""


def is_language(name: str) -> bool:
    """Whether a model, or the model of an address, is a language model: `tales`, or `hf:` and a path or id."""
    return name.startswith("hf:") or name.partition("/")[0] == "tales"


def model_of(folder: Path, metadata: Mapping[str, Any]) -> str:
    """The model that an SAE was trained on, according to its file.

    Raises:
        ModelError: no model of that name; says how one of the user's own is given, where the file tells.
    """
    name = metadata.get("model")
    if not isinstance(name, str):
        raise UsageError(f"{folder} does not name its model")
    if not is_language(name):
        check_known(name, None, metadata.get("card"))
    return name


def site_at(
    command: ModelOptions, address: str, *, named_by_user: bool = False, patch: int | Sequence[int] | None = None
) -> Site:
    """The site at an address, `scenes/mixed3b` or `hf:PATH/layers.2.resid`, or a pair, `scenes/mixed3b..mixed4a`.

    The hub is asked for a language model only where the user named it: an SAE's file may name any. `patch` is the
    size of the window of a pair of layers of a CNN.
    """
    if is_language(address):
        from circuits.network.model import best_device
        from sae.language import LanguageSite, TextUnit
        from zoo.networks.language import load_language

        if BETWEEN in address:
            from sae.language import LanguagePair

            if patch is not None:
                raise UsageError("--patch is of a pair of layers of a CNN: an MLP reads one token at a time")
            first, target = split_pair(address)
            name, _, source = first.rpartition("/")
            lm = load_language(name, device=best_device(command.device), hub=named_by_user)
            return LanguagePair(lm, source, target)
        at = TextUnit.parse(address)
        if at.unit.model is None or at.unit.index is not None or at.unit.basis is not None:
            raise UsageError(
                f"{address!r} is no hook point of a language model: write tales/layers.2.resid, for example"
            )
        return LanguageSite(
            load_language(at.unit.model, device=best_device(command.device), hub=named_by_user), at.unit.layer
        )
    from sae.data.vision_site import VisionSite

    if BETWEEN in address:
        from sae.data.vision_pair import VisionPair

        first, target = split_pair(address)
        model, unit = command.address_of(first)
        return VisionPair(model, unit.short, target, patch=patch)
    model, unit = command.address_of(address)
    return VisionSite(model, unit.short)


def split_pair(address: str) -> tuple[str, str]:
    """The address of a pair's first layer, and the name of its second.

    Raises:
        UsageError: there are not two.
    """
    first, _, target = address.partition(BETWEEN)
    if not first.rpartition("/")[2] or not target or BETWEEN in target or "/" in target:
        raise UsageError(f"{address!r} is no pair of layers: write model/mixed4b..mixed4c")
    return first, target


@dataclass(frozen=True, kw_only=True)
class OtherInputs(ModelOptions):
    """Options of commands that read the inputs of an SAE's training, or others."""

    images: Many = ()
    """Images, instead of those it was trained with; may be repeated."""
    text: str | None = None
    """For a language model: a file of texts, instead of those it was trained with."""
    limit: int | None = None
    """At most so many images or texts, drawn at random with --seed."""


@dataclass(frozen=True)
class Inputs:
    """Images or texts, and where they were, for an SAE's file.

    Attributes:
        data: images (`zoo.images.sources.Images`) or texts (`sae.language.Texts`).
        origin: how to open them again; None where unknown.
    """

    data: Any
    origin: Mapping[str, Any] | None


def inputs_for(model: str, sources: Sequence[str], limit: int | None, seed: int) -> Inputs:
    """The images or texts that were named for a model, or those it has of its own."""
    language = is_language(model)
    if not sources:
        if model not in DEFAULTS:
            option, what = ("--text FILE", "texts") if language else ("--images FOLDER", "images")
            raise UsageError(f"{model} needs {what}: {option}")
        sources = (DEFAULTS[model],)
    if not language:
        images = open_sources(sources, limit, seed)
        return Inputs(images, images.origin)
    if len(sources) > 1:
        raise UsageError("one file of texts is read at a time: append the others to it")
    source = sources[0]
    lasting = source if source.startswith("tales:") else str(Path(source).expanduser().absolute())
    return _texts({"texts": lasting, "limit": limit, "seed": seed})


def _texts(origin: Mapping[str, Any]) -> Inputs:
    from sae.language import open_texts

    texts = open_texts(origin["texts"])
    limit = origin["limit"]
    if limit is not None and limit < len(texts):
        texts = texts.subset(random_indices(len(texts), limit, int(origin["seed"])))
    return Inputs(texts, origin)


def trained_on(folder: Path, metadata: Mapping[str, Any]) -> Inputs:
    """What an SAE was trained with, opened again."""
    from zoo.images.sources import reopen

    data = metadata.get("data")
    option = "--text FILE" if metadata.get("site") == "language" else "--images FOLDER"
    if not isinstance(data, dict) or not isinstance(data.get("origin"), dict):
        raise UsageError(f"{folder} does not record what it was trained on: give {option}")
    origin = data["origin"]
    inputs = _texts(origin) if "texts" in origin else Inputs(reopen(origin), origin)
    if inputs.data.digest != data.get("digest"):
        raise UsageError(f"{inputs.data.name} is not any more what {folder} was trained on: give {option}")
    return inputs


def split(data: Any, share: float, seed: int) -> tuple[Any, Any | None]:
    """Inputs to train on, and those held out, sampled at random; in their order."""
    count = round(share * len(data))
    if not count:
        return data, None
    if count == len(data):
        raise UsageError(f"--held-out {share} leaves none of {len(data)} to train on")
    indices = random_indices(len(data), count, seed)
    out = set(indices)
    return data.subset([i for i in range(len(data)) if i not in out]), data.subset(indices)


def random_indices(total: int, count: int, seed: int) -> list[int]:
    """A random sample of `count` of the numbers below `total`, in order."""
    import numpy as np

    return sorted(np.random.default_rng(seed).permutation(total)[:count].tolist())


def sampled(site: Site, data: Any, seed: int) -> Sampling:
    """Uniform positions, about 100,000 in all: enough for the figures that a training ends with."""
    from sae.data.activations import fitting

    return fitting(site, data, vectors=100_000, seed=seed)


def reconstructions_table(reconstructions: Mapping[str, Reconstruction]) -> Any:
    """How well dictionaries reconstruct, beside their baselines: one row each."""
    rows = [
        [inputs, row.name, f"{row.fvu:.3f}", f"{row.l0:.1f}", f"{100 * row.dead:.1f} %", f"{row.shrinkage:.3f}"]
        for inputs, sae in reconstructions.items()
        for row in (sae, *sae.baselines.values())
    ]
    return table(["on", "dictionary", "FVU", "L0", "dead", "shrinkage"], rows, right="  rrrr")


def input_kind(site: Site) -> str:
    """What the site takes: images or texts."""
    return "images" if site.axes[0] == "image" else "texts"
