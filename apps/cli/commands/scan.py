"""`circuits scan`: top activating images of every unit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import CommandResult, ImageOptions, Many, Session, reporting
from apps.cli.output.console import show_next, stderr, table
from apps.cli.registry import command

STORE = Path("store")
"""Where scans are kept and looked for, unless said otherwise."""


@command(
    group="Analysis", order=70, summary="top activating images and activation histograms of every unit, in one pass"
)
@dataclass(frozen=True, kw_only=True)
class ScanImages(ImageOptions):
    """Scan all units of a model on all images, in one pass, and write the results to a store.

    Per unit: density, activation histogram, and example images with positions: the most activating, between quantiles,
    at random, near zero and the most negative. `circuits explain` shows it, unit by unit. A scan that was
    stopped goes on where it was; the same command again reads what is there. Under `torchrun` each process takes its
    share of the images.

    Example:
        circuits scan scenes --images scenes:500
        circuits scan googlenet-bvlc --images photos --store store
        circuits scan googlenet-bvlc --images shard-0.tar --layers mixed4c --layers mixed4d
        circuits scan scenes --images scenes:500 --layers mixed4a --polysemantic
        torchrun --nproc-per-node 4 -m apps.cli scan googlenet-bvlc --images photos
    """

    model: tyro.conf.Positional[str]
    """Name of a model, as `circuits models` lists them."""
    store: Path = STORE
    """Folder to keep it in; it may hold scans of several models."""
    layers: Many = ()
    """A layer to scan; may be repeated. By default every rectified layer and the trunk."""
    top: int = 100
    """Images with the strongest responses to keep, per unit."""
    samples: int = 2048
    """Positions, sampled at random, at which the activations of all units are recorded."""
    batch_size: int = 8
    """Images per forward pass."""
    workers: int = 2
    """Threads that decode images."""
    replace: tyro.conf.FlagCreatePairsOff[bool] = False
    """Scan again, whatever the store holds of this model."""
    visualize: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also a feature visualization of every unit, for the explorer; its time is said before it begins."""
    polysemantic: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also how polysemantic every unit is, for the explorer; its time is said before it begins."""

    def run(self, session: Session) -> CommandResult:
        """The layers, how many units each has, and how active they are."""
        from circuits.dataset.scan import scan
        from circuits.dataset.streaming_statistics import Plan

        self.check_least("top", "samples", "batch_size")
        self.check_least("workers", least=0)
        model = self.load(self.model)
        images = self.open_images(model.name)
        with session.progress(f"scanning {model.name}") as report:
            result = scan(
                model,
                images,
                self.store,
                layers=list(self.layers) or None,
                plan=Plan(top=self.top, samples=self.samples, seed=self.seed),
                batch_size=self.batch_size,
                workers=self.workers,
                replace=self.replace,
                **reporting(report),
            )
        prepared = self._prepare(session, model, result, images) if self.visualize or self.polysemantic else {}
        layers = [_row(name, result.layer(name)) for name in result.layers]
        units = sum(result.layers.values())
        new = result.seconds > 0
        document: dict[str, Any] = {
            "model": model.name,
            "store": str(self.store),
            "images": {"name": images.name, "count": len(images), "digest": images.digest},
            "units": units,
            "layers": layers,
            "made": new,
            "seconds": round(result.seconds, 2),
            "waited": round(result.waited, 2),
            **prepared,
        }

        def show(console: Console) -> None:
            rows = [
                [
                    Text(r["layer"], style="bold"),
                    r["units"],
                    f"{100 * r['density']:.1f} %",
                    r["never"],
                    f"{r['maximum']:.3g}",
                ]
                for r in layers
            ]
            console.print(
                table(["layer", "units", "active positions", "never active", "strongest"], rows, right=" rrrr")
            )
            summary = f"{units} units, {len(images)} images"
            console.print(
                Text(f"{summary}, {result.seconds:.1f} s" if new else f"{summary}: was there already", style="dim")
            )
            if new:
                console.print(Text(_bound(result.waited, result.seconds), style="dim"))
            # the deepest scanned layer of the trunk but for the class scores
            layer = ([name for name in model.trunk[:-1] if name in result.layers] or [*result.layers])[-1]
            show_next(console, self.follow_up("explain", f"{model.name}/{layer}:0", "--store", self.store))

        return CommandResult(document, show)

    def _prepare(self, session: Session, model: Any, result: Any, images: Any) -> dict[str, Any]:
        """Make what the explorer's pages of units show beyond the scan."""
        from apps.explorer.resources.prepared import needs, prepare

        layers = [name for name in result.layers if not self.layers or name in self.layers]
        wanted = {"visualizations": self.visualize, "polysemanticity": self.polysemantic}
        need = needs(model, result, images, layers, **wanted)
        stderr().print(Text(str(need)))
        with session.progress("preparing the pages of units") as report:
            prepare(model, result, images, need, report)
        return {"visualized": need.units[0], "clustered": need.units[1]}


def _row(name: str, layer: Any) -> dict[str, Any]:
    return {
        "layer": name,
        "units": len(layer),
        "density": float(layer.density.mean()),
        "never": int((layer.active_images == 0).sum()),
        "maximum": float(layer.maximum.max()),
    }


def _bound(waited: float, seconds: float) -> str:
    share = waited / max(seconds, 1e-9)
    if share > 0.3:
        return f"{100 * share:.0f} % of it waiting for images: decoding is the bound, more --workers may help"
    return f"{100 * share:.0f} % of it waiting for images: the network is the bound"
