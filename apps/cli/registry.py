"""The commands by name. A new one is a line here and a class in `apps/cli/commands/`."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apps.cli.common import Command


@dataclass(frozen=True)
class Entry:
    """Where a command lives, under which heading, and what it does in a few words."""

    module: str
    cls: str
    group: str
    what: str


_SEE, _LOOK, _SAE, _KEEP = "What there is", "Looking inside", "Sparse autoencoders", "Keeping house"

COMMANDS: dict[str, Entry] = {
    "demo": Entry("demo", "Demo", _SEE, "the main job in one go: trace the car detector of the built-in network"),
    "models": Entry("models", "Models", _SEE, "models that can be looked into, and whether their weights are here"),
    "layers": Entry("layers", "Layers", _SEE, "layers of a model: channels, size, stride, receptive field"),
    "images": Entry("images", "DrawImages", _SEE, "draw labeled scenes into a folder, to trace and find with"),
    "find": Entry("find", "Find", _LOOK, "units that tell pictures of a concept from pictures without it"),
    "trace": Entry("trace", "Trace", _LOOK, "the circuit behind a unit: its parents, their weights, the sum, a report"),
    "score": Entry("score", "ScoreCircuit", _LOOK, "how much of a unit a traced circuit explains, against random ones"),
    "weights": Entry("weights", "Weights", _LOOK, "the kernels from one layer to a unit of a later one"),
    "attribute": Entry("attribute", "Attribute", _LOOK, "what each unit of a layer contributes to a unit, on pictures"),
    "visualize": Entry("visualize", "Visualize", _LOOK, "pictures of what units look for, made by optimization"),
    "scan": Entry("scan", "ScanImages", _LOOK, "what all units answer to: one pass over pictures, kept in a store"),
    "explain": Entry("explain", "Explain", _LOOK, "the dossier of one unit, from a scan: all that is known of it"),
    "tune": Entry("tune", "Tune", _LOOK, "what units are tuned to, and a search for detectors by their tuning"),
    "neighbors": Entry(
        "neighbors", "ShowNeighbors", _LOOK, "units of a layer most like a unit: by weights or by when they fire"
    ),
    "match": Entry(
        "match", "MatchUnits", _LOOK, "which unit of another network fires when this one does, against controls"
    ),
    "factors": Entry(
        "factors",
        "ShowFactors",
        _LOOK,
        "weights into a unit or family told as a few groups of channels and their places",
    ),
    "polysemantic": Entry(
        "polysemantic", "Polysemantic", _LOOK, "units that answer to several unrelated things, taken apart"
    ),
    "atlas": Entry("atlas", "DrawAtlas", _LOOK, "what a layer can say, laid out on a map of icons"),
    "look": Entry("look", "Look", _LOOK, "one picture taken apart: places, groups of channels, classes"),
    "toy": Entry("toy", "Toy", _LOOK, "toy models of superposition: train sweeps, print and draw them"),
    "figures": Entry("figures", "Figures", _LOOK, "the papers' figures made again, on any model, with their numbers"),
    "sae train": Entry("sae_train", "TrainSAE", _SAE, "train sparse autoencoders on the activations of a layer"),
    "sae eval": Entry("sae_eval", "EvaluateSAE", _SAE, "what an SAE keeps of a layer and of what the net predicts"),
    "sae features": Entry("sae_features", "ShowFeatures", _SAE, "what latents answer to, a page of examples for each"),
    "sae search": Entry("sae_search", "SearchLatents", _SAE, "latents that tell some texts from other texts"),
    "steer": Entry("steer", "Steer", _SAE, "turn a unit or latent up and down: effects, side effects, capability"),
    "explore": Entry("explore", "Explore", _SEE, "the circuit explorer in the browser, on your own model and pictures"),
    "verify": Entry("verify", "Verify", _KEEP, "known answers: what was published or planted, what comes out here"),
    "doctor": Entry("doctor", "Doctor", _KEEP, "what is installed, what is missing, and the command that mends it"),
}


def load_command(name: str) -> type[Command]:
    """The class of the command `name`."""
    entry = COMMANDS[name]
    command: type[Command] = getattr(importlib.import_module(f"apps.cli.commands.{entry.module}"), entry.cls)
    return command
