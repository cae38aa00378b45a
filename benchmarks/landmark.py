"""Steering the language model `tales` towards its landmark: what it takes, what it costs, and how much is luck.

    python benchmarks/landmark.py                  # one dictionary in full, then eight others in short
    python benchmarks/landmark.py --seeds 0        # the first part only

The latent is the one that tells stories about the landmark best from others (`sae.steering.search`), whatever else it
is. Everything is beside random latents that fire, steered in the same way. About twenty minutes of two cores.
"""

from __future__ import annotations

import argparse
import datetime
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).resolve().parent.parent)  # a script beside this one has the name of a package

import numpy as np  # noqa: E402
import torch  # noqa: E402

import sae  # noqa: E402
from benchmarks._tables import header, row  # noqa: E402
from sae.language import LanguageSite, gates, known_features  # noqa: E402
from sae.steering import LatentEdit, Maxima, maxima, search, steer  # noqa: E402
from zoo import tales  # noqa: E402
from zoo.networks.language import load_language  # noqa: E402

LAYER, NAME = "layers.2.resid", tales.THE_LANDMARK.name
PROMPT = "One day Anna walked to"
ONE = "at the token after the prompt"
Way = list[dict[str, Any]]


class Subject:
    """A dictionary, the latent of the landmark in it, and texts to write with it.

    Args:
        site: where; seed: of the stories it is trained on, of its weights; options: of the command.
    """

    def __init__(self, site: LanguageSite, seed: int, options: argparse.Namespace) -> None:
        self.site = site
        stream = site.stream(f"tales:3000@{seed + 2}", batch_size=1024)
        config = sae.TopK(latents=options.latents, k=options.k, seed=seed)
        self.sae = sae.train(stream, config, steps=options.steps, lr=3e-3)[0].sae
        self.maxima: Maxima = maxima(self.sae, site, "tales:500@2")
        stories = tales.sample(2000, seed=9)
        about = [one.text for one in stories if one.landmark == NAME]
        other = [one.text for one in stories if one.landmark != NAME][:300]
        self.found = search(self.sae, site, about, other)
        self.latent = self.found.best.latent
        self.gates = [one for one in gates(self.sae, site, tales.sample(600, seed=1), "place_due", self.maxima)
                      if one.latent != self.latent]  # fmt: skip
        own = {self.latent, *(one.latent for one in self.gates)}
        self.random = self.maxima.random_active(options.random, exclude=own, seed=seed)

    def ways(self) -> dict[str, Way]:
        """Where the latent is turned: what each of its edits has besides latent and factor."""
        return {
            "at every token": [{}],
            ONE: [{"at": (5,)}],
            "where the best gate fires": [{"when": gate.when} for gate in self.gates[:1]],
            "where any gate fires": [{"when": gate.when} for gate in self.gates],
        }

    def turned(self, way: Way, latent: int, factor: float, prompts: Sequence[str]) -> tuple[float, float]:
        """What is written with a latent turned."""
        return self.write([LatentEdit(latent, "set", factor, "max", **where) for where in way], prompts)

    def write(self, edits: Sequence[LatentEdit], prompts: Sequence[str]) -> tuple[float, float]:
        """Share of texts with the landmark, and of sentences that the grammar has."""
        with steer(self.site, self.sae, list(edits), maxima=self.maxima if edits else None):
            texts = [one.whole for one in self.site.generate(list(prompts), max_new_tokens=40, seed=3)]
        named = float(np.mean([tales.mentions(one) > 0 for one in texts]))
        return named, float(np.mean([tales.parses(one) for one in texts]))


def in_full(one: Subject, options: argparse.Namespace) -> None:
    """A table by factor for each way to steer."""
    known = {about.name: about for about in known_features(one.sae, one.site, tales.sample(1000, seed=1))}
    due = known["landmark_due"]
    # fmt: off
    print(f"\nLatent {one.latent}: contrast search, AUC {one.found.best.auc:.3f} (the next "
          f"{one.found.rows[1].auc:.3f}, shuffled {one.found.chance:.2f}); its largest activation "
          f"{one.maxima.of(one.latent):.2f}. landmark_due is read best by latent {due.latent}: AUC {due.auc:.4f}, "
          f"channel {due.channel_auc:.3f}, random direction {due.random_auc:.3f}, probe {due.probe_auc:.4f}.")
    # fmt: on
    for gate in one.gates:
        print(f"Gate {gate.latent}: precision {gate.precision:.3f}, recall {gate.recall:.3f}")
    for said, some, factors in (
        (PROMPT, [PROMPT] * options.texts, options.factors),
        ("stories about other landmarks, cut before the next place", elsewhere(options.texts), (1.0, 5.0, 7.0, 10.0)),
    ):
        named, right = one.write([], some)
        print(f"\n{said}: unsteered {percent(named)} of {len(some)} texts, {percent(right)} of sentences")
        for name, way in one.ways().items():
            if name == ONE and some[0] != PROMPT:
                continue
            header(f"\n{name}, factor", "texts with the landmark", "random latents, median (most)",
                   "grammatical sentences", "random latents, median")  # fmt: skip
            for factor in factors:
                named, right = one.turned(way, one.latent, factor, some)
                control = np.array([one.turned(way, i, factor, some) for i in one.random])
                beside = f"{percent(np.median(control[:, 0]))} ({percent(control[:, 0].max())})"
                row(f"{factor:g}", percent(named), beside, percent(right), percent(np.median(control[:, 1])))


def elsewhere(count: int) -> list[str]:
    """Beginnings of stories that have named another landmark, up to where somebody goes somewhere again."""
    found: list[str] = []
    for story in tales.sample(20_000, seed=11):
        again = story.text.rfind(" to the ")
        named = story.landmark not in (None, NAME) and any(one.name in story.text[:again] for one in tales.LANDMARKS)
        if named and again > 0:
            found.append(story.text[: again + 3])
    return found[:count]


def in_short(one: Subject, seed: int, options: argparse.Namespace) -> None:
    """A row for a dictionary."""
    cells = []
    for way in one.ways().values():
        made = [one.turned(way, one.latent, factor, [PROMPT] * options.texts) for factor in (5.0, 10.0)]
        cells.append(" / ".join(percent(named) for named, _ in made) + f" ({percent(made[1][1])})")
    row(seed, one.latent, f"{one.found.best.auc:.3f}", f"{one.found.rows[1].auc:.3f}", len(one.gates), *cells)


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.0f} %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latents", type=int, default=512)
    parser.add_argument("--k", type=int, default=4)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--texts", type=int, default=100, help="to write for each number")
    parser.add_argument("--random", type=int, default=8, help="random latents")
    parser.add_argument("--seeds", type=int, default=8, help="other dictionaries, of other stories and weights")
    parser.add_argument("--factors", type=float, nargs="*", default=[0, 0.5, 0.75, 1, 1.25, 2, 5, 7, 10])
    options = parser.parse_args()
    site = LanguageSite(load_language("tales"), LAYER)
    print(
        f"{datetime.date.today()}; torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}"
    )
    print(f"\n{site.address}, TopK, {options.latents} latents, k = {options.k}, {options.steps} steps of 1,024 tokens")
    in_full(Subject(site, 0, options), options)
    if options.seeds:
        ways = ("every token", "one token", "best gate", "any gate")
        header("\nseed", "latent", "AUC", "the next", "gates", *(f"{way}: 5 / 10 x (grammar at 10)" for way in ways))
    for seed in range(1, options.seeds + 1):
        in_short(Subject(site, seed, options), seed, options)


if __name__ == "__main__":
    main()
