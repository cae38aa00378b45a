"""Steering the language model `tales` towards its landmark: effect, cost in grammar, and variation over dictionaries.

    python benchmarks/landmark.py                  # one dictionary in full, then eight others in short
    python benchmarks/landmark.py --seeds 0        # the first part only

The latent is the one that best separates stories about the landmark from others (`sae.steering.search`). Steps as long
along random active latents are the control of every number. About twenty minutes of two cores.
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
from sae.data.site import Function  # noqa: E402
from sae.language import LanguageSite, gates, known_features  # noqa: E402
from sae.steering import EqualStep, LatentEdit, Maxima, maxima, search, steered  # noqa: E402
from zoo import tales  # noqa: E402
from zoo.networks.language import load_language  # noqa: E402

LAYER, NAME = "layers.2.resid", tales.THE_LANDMARK.name
PROMPT = "One day Anna walked to"
ONE_TOKEN = "at the token after the prompt"
Way = list[dict[str, Any]]


class Subject:
    """A dictionary, its latent of the landmark, and texts steered with it.

    Args:
        site: of the dictionary; seed: of its training stories and weights; options: of the command.
    """

    def __init__(self, site: LanguageSite, seed: int, options: argparse.Namespace) -> None:
        self.site = site
        stream = site.stream(f"tales:3000@{seed + 2}", batch_size=1024)
        config = sae.TopK(latents=options.latents, k=options.k, seed=seed)
        self.sae = sae.train(stream, config, steps=options.steps, lr=3e-3)[0].sae
        self.maxima: Maxima = maxima(self.sae, site, "tales:500@2")
        stories = tales.sample(2000, seed=9)
        about = [item.text for item in stories if item.landmark == NAME]
        other = [item.text for item in stories if item.landmark != NAME][:300]
        self.search = search(self.sae, site, about, other)
        self.latent = self.search.best.latent
        self.gates = [item for item in gates(self.sae, site, tales.sample(600, seed=1), "place_due", self.maxima)
                      if item.latent != self.latent]  # fmt: skip
        own = {self.latent, *(item.latent for item in self.gates)}
        self.random = self.maxima.random_active(options.random, exclude=own, seed=seed)

    def ways(self) -> dict[str, Way]:
        """Positions and conditions of the edits, by description."""
        return {
            "at every token": [{}],
            ONE_TOKEN: [{"at": (5,)}],
            "where the best gate fires": [{"when": gate.when} for gate in self.gates[:1]],
            "where any gate fires": [{"when": gate.when} for gate in self.gates],
        }

    def steered(self, way: Way, factor: float, prompts: Sequence[str], other: int | None = None) -> tuple[float, float]:
        """Share of texts with the landmark, and of grammatical sentences, with the latent steered.

        Or with a step as long along another latent.
        """
        edits = [LatentEdit(self.latent, "set", factor, "max", **options) for options in way]
        own = steered(self.site, self.sae, edits, maxima=self.maxima if edits else None)
        return self.write(own if other is None else EqualStep.of_latents(own, {self.latent: other}), prompts)

    def write(self, function: Function, prompts: Sequence[str]) -> tuple[float, float]:
        """Share of texts with the landmark, and of grammatical sentences."""
        with self.site.replaced(function):
            texts = [text.whole for text in self.site.generate(list(prompts), max_new_tokens=40, seed=3)]
        mentions_it = float(np.mean([tales.mentions(text) > 0 for text in texts]))
        return mentions_it, float(np.mean([tales.parses(text) for text in texts]))


def in_full(subject: Subject, options: argparse.Namespace) -> None:
    """A table by factor for each way to steer."""
    features = {about.name: about for about in known_features(subject.sae, subject.site, tales.sample(1000, seed=1))}
    due = features["landmark_due"]
    # fmt: off
    print(f"\nLatent {subject.latent}: contrast search, AUC {subject.search.best.auc:.3f} (the next "
          f"{subject.search.rows[1].auc:.3f}, shuffled {subject.search.chance:.2f}); its largest activation "
          f"{subject.maxima.of(subject.latent):.2f}. The best latent for landmark_due is {due.latent}: "
          f"AUC {due.auc:.4f}, "
          f"channel {due.channel_auc:.3f}, random direction {due.random_auc:.3f}, probe {due.probe_auc:.4f}.")
    # fmt: on
    for gate in subject.gates:
        print(f"Gate {gate.latent}: precision {gate.precision:.3f}, recall {gate.recall:.3f}")
    for title, prompts, factors in (
        (PROMPT, [PROMPT] * options.texts, options.factors),
        ("stories about other landmarks, cut before the next place", elsewhere(options.texts), (1.0, 5.0, 7.0, 10.0)),
    ):
        share, right = subject.steered([], 0.0, prompts)
        print(f"\n{title}: unsteered {percent(share)} of {len(prompts)} texts, {percent(right)} of sentences")
        for name, way in subject.ways().items():
            if name == ONE_TOKEN and prompts[0] != PROMPT:
                continue
            header(f"\n{name}, factor", "texts with the landmark", "random latents, median (most)",
                   "grammatical sentences", "random latents, median")  # fmt: skip
            for factor in factors:
                share, right = subject.steered(way, factor, prompts)
                control = np.array([subject.steered(way, factor, prompts, i) for i in subject.random])
                beside = f"{percent(np.median(control[:, 0]))} ({percent(control[:, 0].max())})"
                row(f"{factor:g}", percent(share), beside, percent(right), percent(np.median(control[:, 1])))


def elsewhere(count: int) -> list[str]:
    """Beginnings of stories that have named another landmark, up to the next visit to a place."""
    beginnings: list[str] = []
    for story in tales.sample(20_000, seed=11):
        again = story.text.rfind(" to the ")
        another = story.landmark not in (None, NAME) and any(
            landmark.name in story.text[:again] for landmark in tales.LANDMARKS
        )
        if another and again > 0:
            beginnings.append(story.text[: again + 3])
    return beginnings[:count]


def in_short(subject: Subject, seed: int, options: argparse.Namespace) -> None:
    """A row for a dictionary."""
    cells = []
    for way in subject.ways().values():
        shares = [subject.steered(way, factor, [PROMPT] * options.texts) for factor in (5.0, 10.0)]
        cells.append(" / ".join(percent(share) for share, _ in shares) + f" ({percent(shares[1][1])})")
    best, following = subject.search.rows[:2]
    row(seed, subject.latent, f"{best.auc:.3f}", f"{following.auc:.3f}", len(subject.gates), *cells)


def percent(share: float) -> str:
    """A share in percent."""
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
