"""Which parts the units of a layer detect, in networks of scenes, by masks: `python benchmarks/parts.py`.

For each of the 25 parts the best unit of `mixed3b` is chosen on one half of 520 held-out scenes, by AUC over positions,
and judged on the other: of the network that was taught parts, of the one that was trained on labels alone, and of
untrained ones.
"""

from __future__ import annotations

import torch
from _tables import header, row

import circuits
from tools.scenes.evaluate import part_auc, run
from zoo.scenes.generate import dataset

SEED = 123_456
"""Of the scenes: of no data set that a network was trained on or chosen by."""


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    scenes = list(dataset(520, SEED))
    networks = {name: circuits.load(name, device="cpu") for name in ("scenes", "scenes-labels")}
    for seed in (0, 1):
        networks[f"untrained, seed {seed}"] = circuits.untrained(networks["scenes-labels"], seed=seed)
    header("network", "mean AUC", "parts of 25 with AUC above 0.9", "different units")
    for name, model in networks.items():
        chosen, judged = (part_auc(run(model.module, half)) for half in (scenes[::2], scenes[1::2]))
        units = {part: int(auc.argmax()) for part, auc in chosen.items()}
        values = torch.stack([judged[part][unit] for part, unit in units.items()])
        row(name, f"{float(values.mean()):.3f}", int((values >= 0.9).sum()), len(set(units.values())))


if __name__ == "__main__":
    main()
