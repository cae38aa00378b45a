"""The runs of a sweep as rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

if TYPE_CHECKING:
    from sae.training.train import Run


def summary(
    runs: Sequence[Run], activations: Tensor | None = None, *, batch_size: int = 4096, seed: int = 0
) -> list[dict[str, Any]]:
    """A table of runs: one JSON-ready row each, in their order.

    Args:
        runs: of `train`.
        activations: `(N, d)` held-out vectors to measure on; then every row has the channel and the random baseline
            beside its FVU. Without them FVU, L0 and dead are those of the last report of the training.
        batch_size: vectors at a time; seed: of the random dictionary.

    Returns:
        `name`, `architecture` and `status`; of the settings, `latents`, `k` where there is one, and all that differ
        between the runs; `steps`, `samples`; `fvu`, `l0`, `dead` (a share), and with `activations` `channels_fvu`,
        `random_fvu` and `measured` (N). Numbers that were not reported or are not finite are None.

    >>> summary(train(x, sweep(sae.TopK(latents=64), k=[2, 4]), steps=100))[0]["k"]  # doctest: +SKIP
    2
    """
    from sae.evaluation.metrics import reconstruction

    settings = [run.config.to_dict() for run in runs]
    names = list(dict.fromkeys(name for entry in settings for name in entry))
    columns = {"latents", "k"} | {
        name for name in names if any(entry.get(name) != settings[0].get(name) for entry in settings)
    }
    rows: list[dict[str, Any]] = []
    for run, config in zip(runs, settings, strict=True):
        options = {n: config[n] for n in names if n in config and n in columns and n not in ("name", "architecture")}
        row = {"name": run.name, "architecture": config["architecture"], "status": run.status, **options}
        row |= {"steps": run.steps, "samples": run.samples}
        if activations is None:
            last = run.reports[-1] if run.reports else None
            row |= {name: _finite(getattr(last, name, None)) for name in ("fvu", "l0", "dead")}
        elif any(not bool(value.isfinite().all()) for value in run.sae.state_dict().values()):
            row |= dict.fromkeys(("fvu", "l0", "dead", "channels_fvu", "random_fvu"))
            row["measured"] = len(activations)
        else:
            measured = reconstruction(run.sae, activations, batch_size=batch_size, seed=seed)
            row |= {name: _finite(getattr(measured, name)) for name in ("fvu", "l0", "dead")}
            row |= {f"{name}_fvu": _finite(measured.baselines[name].fvu) for name in ("channels", "random")}
            row["measured"] = measured.samples
        rows.append(row)
    return rows


def _finite(number: float | None) -> float | None:
    return None if number is None or number != number or abs(number) == float("inf") else float(number)
