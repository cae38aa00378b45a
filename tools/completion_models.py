"""Write the names of models and their layers that shell completion knows: `python -m tools.completion_models`."""

from __future__ import annotations

import json

import circuits
from apps.cli.output.completion.known import SHIPPED
from sae.language.hook_points import site_paths
from zoo.networks.language import load_language
from zoo.registry import cards


def layers_of_models() -> dict[str, list[str]]:
    """Model -> its layers, of the models that have a card in the zoo, and of the language model in the package."""
    names = [name for name, card in cards().items() if not card.own]
    layers = {name: list(circuits.load(name, weights="random").layers) for name in names}
    return layers | {"tales": list(site_paths(load_language("tales")))}


if __name__ == "__main__":
    SHIPPED.write_text(json.dumps(layers_of_models(), indent=0) + "\n", encoding="utf-8")
