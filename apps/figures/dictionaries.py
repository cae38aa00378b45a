"""Sparse autoencoders that figures share: trained by the first that asks, read by the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from apps.figures.bench import Bench
    from sae.base import SAE
    from sae.sites import Site


def dictionary(bench: Bench, site: Site, inputs: object, *, latents: int, k: int, steps: int, seed: int = 0) -> SAE:
    """A TopK SAE of a site, kept in the shared folder.

    Args:
        bench: of the figure.
        site: vision or language; inputs: pictures or texts for it.
        latents, k, steps: of `sae.TopK` and `sae.train`.
        seed: of the training.
    """
    import sae

    name = f"sae-{site.address.replace('/', '-')}-{latents}-{k}-{steps}-{seed}"
    folder = bench.shared / name
    with bench.lock(name):
        if not (folder / "cfg.json").is_file():
            stream = site.stream(inputs, batch_size=1024, seed=seed)  # type: ignore[attr-defined]
            run = sae.train(stream, sae.TopK(latents=latents, k=k), steps=steps, seed=seed)[0]
            sae.save(folder, run.sae)
        return sae.load(folder)
