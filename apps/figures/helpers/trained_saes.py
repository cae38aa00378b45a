"""Sparse autoencoders that figures share: trained by the first that asks, read by the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from apps.figures.context import NotApplicable

if TYPE_CHECKING:
    from torch import Tensor

    from apps.figures.context import FigureContext
    from sae.architectures.base import SAE
    from sae.data.site import Site
    from sae.data.vision_site import VisionSite
    from zoo.images.sources import Images

NAME = "latents"
"""What the shared SAE is called in addresses: `mixed4c~latents:12`."""
RATE = 3e-3
"""Learning rate of short trainings: larger than the default, which is for longer ones."""


def dictionary(
    context: FigureContext, site: Site, inputs: object, *, latents: int, k: int, steps: int, seed: int = 0
) -> SAE:
    """A TopK SAE of a site, kept in the shared folder.

    Args:
        context: of the figure.
        site: vision or language; inputs: pictures or texts for it.
        latents, k, steps: of `sae.TopK` and `sae.train`.
        seed: of the training.
    """
    import sae

    name = f"sae-{site.address.replace('/', '-')}-{latents}-{k}-{steps}-{seed}"
    folder = context.shared / name
    with context.lock(name):
        if not (folder / "cfg.json").is_file():
            stream = site.stream(inputs, batch_size=1024, seed=seed)  # type: ignore[attr-defined]
            run = sae.train(stream, sae.TopK(latents=latents, k=k), steps=steps, lr=RATE, seed=seed)[0]
            sae.save(folder, run.sae)
        return sae.load(folder)


@dataclass(frozen=True, eq=False)
class Trained:
    """The SAE that figures about latents share.

    Attributes:
        site: the layer; sae: its SAE, attached to the model as `NAME`.
        training, held_out: pictures it was trained on, and others.
        vectors: `(n, d)` of places of held-out pictures, drawn by lot.
        how: what it is, for a caption.
    """

    site: VisionSite
    sae: SAE
    training: Images
    held_out: Images
    vectors: Tensor
    how: str

    @property
    def layer(self) -> str:
        """Name of the layer."""
        return self.site.layer.name


def trained(context: FigureContext) -> Trained:
    """An SAE of a middle layer, trained on four fifths of the pictures.

    Four times as many latents as channels (GoogLeNet's mixed4c: 2,048 of 512), 32 of which are active at once; fewer on
    a small layer.

    Raises:
        NotApplicable: a network without places, or too few pictures.
    """
    from sae.data.vision_site import VisionSite

    layer = middle_layer(context)
    site = VisionSite(context.model, layer)
    training, held_out = halves(context.images)
    latents, k = 4 * site.d, max(2, min(32, site.d // 8))
    steps = context.size(400, 200, 60)
    found = dictionary(context, site, training, latents=latents, k=k, steps=steps, seed=context.seed)
    if (layer, NAME) not in context.model.bases:
        site.attach(NAME, found)
    how = (
        f"TopK SAE of {layer}: {latents} latents, {k} of them active at once, {steps} steps of 1,024 vectors of "
        f"{len(training)} pictures"
    )
    return Trained(site, found, training, held_out, vectors_of(context, site, held_out), how)


def middle_layer(context: FigureContext) -> str:
    """The layer whose latents figures are about: of InceptionV1 mixed4c, of a smaller one mixed3b."""
    from apps.figures.helpers.chosen_images import layer_of

    return layer_of(context, "mixed4c", "mixed3b")


def halves(images: Images) -> tuple[Images, Images]:
    """Four fifths of the pictures to train on, and every fifth to judge by.

    Raises:
        NotApplicable: fewer than ten pictures.
    """
    if len(images) < 10:
        raise NotApplicable(
            f"needs ten pictures or more, to train on some and judge by others; {len(images)} were given"
        )
    held = [i for i in range(len(images)) if i % 5 == 2]
    return images.subset([i for i in range(len(images)) if i % 5 != 2]), images.subset(held)


def vectors_of(context: FigureContext, site: VisionSite, images: Images, per_image: int = 40) -> Tensor:
    """Activation vectors `(n, d)` of some places of each picture, drawn by lot."""
    from sae.data.activations import Sampling, collect

    return collect(site, images, sampling=Sampling(per_input=per_image, seed=context.seed)).vectors
