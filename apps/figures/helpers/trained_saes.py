"""Sparse autoencoders that figures share: trained by the first figure that needs them, loaded by the others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from apps.figures.context import FigureContext, NotApplicable
from apps.figures.helpers.chosen_images import layer_of

if TYPE_CHECKING:
    from sae.architectures.base import SAE
    from sae.data.site import Site
    from sae.data.vision_site import VisionSite
    from zoo.images.sources import Images

NAME = "latents"
"""Name of the shared SAE in addresses: `mixed4c~latents:12`."""
RATE = 3e-3
"""Learning rate of short runs: larger than the default, which suits longer ones."""


def dictionary(
    context: FigureContext, site: Site, inputs: object, *, latents: int, k: int, steps: int, seed: int = 0
) -> SAE:
    """A TopK SAE of a site, cached in the shared folder.

    Args:
        context: of the figure.
        site: vision or language; inputs: images or texts for it.
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
        training, held_out: images for training, and the others.
        vectors: `(n, d)` at random positions of held-out images.
        how: a description for the caption.
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
    """An SAE of a middle layer, trained on four fifths of the images.

    It has four times as many latents as channels (GoogLeNet's mixed4c: 2,048 of 512), of which 32 are active at once;
    fewer in a small layer.

    Raises:
        NotApplicable: a network without spatial layers, or too few images.
    """
    from sae.data.vision_site import VisionSite

    layer = middle_layer(context)
    site = VisionSite(context.model, layer)
    training, held_out = halves(context.images)
    latents, k = 4 * site.d, max(2, min(32, site.d // 8))
    steps = context.size(400, 200, 60)
    shared = dictionary(context, site, training, latents=latents, k=k, steps=steps, seed=context.seed)
    if (layer, NAME) not in context.model.bases:
        site.attach(NAME, shared)
    how = (
        f"TopK SAE of {layer}: {latents} latents, {k} of them active at once, {steps} steps of 1,024 vectors of "
        f"{len(training)} images"
    )
    return Trained(site, shared, training, held_out, vectors_of(context, site, held_out), how)


def middle_layer(context: FigureContext) -> str:
    """The layer of the shared SAE: mixed4c of InceptionV1, mixed3b of a smaller network."""
    return layer_of(context, "mixed4c", "mixed3b")


def halves(images: Images) -> tuple[Images, Images]:
    """Four fifths of the images for training, and every fifth, held out.

    Raises:
        NotApplicable: fewer than ten images.
    """
    if len(images) < 10:
        raise NotApplicable(
            f"needs ten images or more, to train on some and evaluate on others; there are {len(images)}"
        )
    held_out = range(2, len(images), 5)
    return images.subset([i for i in range(len(images)) if i not in held_out]), images.subset(held_out)


def vectors_of(context: FigureContext, site: VisionSite, images: Images, per_image: int = 40) -> Tensor:
    """Activation vectors `(n, d)` at random positions of each image."""
    from sae.data.activations import Sampling, collect

    return collect(site, images, sampling=Sampling(per_input=per_image, seed=context.seed)).vectors
