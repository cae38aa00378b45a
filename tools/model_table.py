"""What each verb gives on networks of torchvision and timm: the right value, or a refusal that names the reason.

Right values are worked out with plain PyTorch: hooks, autograd, and the linearized network's own gradients. Weights are
random, inputs of the size that the cards say. `python -m tools.model_table NAME ...` writes docs/models.md, row by row;
tests/contract/test_model_table.py checks all of `NAMES`.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from captum.attr import InputXGradient, IntegratedGradients
from torch import Tensor, nn

import circuits
import sae
from circuits.dataset.streaming_statistics import Plan
from circuits.errors import CircuitsError
from circuits.network.linearized import linearized
from zoo.networks.torchvision import classifiers
from zoo.registry import Loaded, build

TORCHVISION = (
    "alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3",
    "maxvit_t", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "regnet_x_400mf", "regnet_y_400mf", "resnet18",
    "resnext50_32x4d", "shufflenet_v2_x0_5", "squeezenet1_1", "swin_t", "swin_v2_t", "vgg11", "vgg11_bn", "vit_b_16",
    "wide_resnet50_2", "fcn_resnet50", "deeplabv3_mobilenet_v3_large", "lraspp_mobilenet_v3_large",
    "ssdlite320_mobilenet_v3_large", "retinanet_resnet50_fpn", "fcos_resnet50_fpn", "ssd300_vgg16",
    "fasterrcnn_mobilenet_v3_large_320_fpn", "maskrcnn_resnet50_fpn", "keypointrcnn_resnet50_fpn",
)  # fmt: skip
TIMM = (
    "coatnet_nano_rw_224", "convnextv2_atto", "cspresnet50", "darknet53", "davit_tiny", "deit_tiny_patch16_224",
    "dla34", "edgenext_xx_small", "fastvit_t8", "gernet_s", "ghostnet_100", "hrnet_w18_small", "levit_128s",
    "mixer_s16_224", "mixnet_s", "mobilenetv3_small_050", "nf_resnet50", "nfnet_l0", "pit_ti_224", "poolformer_s12",
    "pvt_v2_b0", "regnetx_002", "repvgg_a0", "res2net50_26w_4s", "resnest14d", "resnetv2_50", "seresnet50",
    "skresnet18", "swin_tiny_patch4_window7_224", "tf_efficientnet_b0", "vit_tiny_patch16_224", "vovnet39a",
    "xception41",
)  # fmt: skip
NAMES = (*(f"torchvision/{n}" for n in TORCHVISION), *(f"timm/{n}" for n in TIMM))
VERBS = (
    "capture", "edit", "find", "scan", "explain", "visualize", "attribute input", "attribute layer", "integrated",
    "weights", "trace", "polysemantic", "SAE",
)  # fmt: skip
RIGHT = "right"
PAGE = Path(__file__).parent.parent / "docs" / "models.md"
"""Where the rows are kept, so that a run that was stopped goes on where it was."""
_LAYOUTS = ("channels-first", "channels-last", "tokens", "vector")
_PLAN = Plan(top=2, few=1, per_band=1, samples=2, draws=1)


@dataclass
class Row:
    """What one network gives: verb -> "right", or the text of the refusal; and the seconds that a verb took."""

    name: str
    size: tuple[int, int] = (0, 0)
    outcomes: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


class Wrong(AssertionError):
    """A value that plain PyTorch does not give."""


def _small_input(loaded: Loaded) -> circuits.InputSpec:
    """Images as the card says; networks that take any size are given small ones.

    A detector of the R-CNN kind scales images itself, so that their short side has 800 pixels: 160 here.
    """
    library, _, name = loaded.card.name.partition("/")
    if library != "torchvision" or name in classifiers():
        return loaded.card.input
    scaling = getattr(loaded.module, "transform", None)
    if scaling is not None and scaling.fixed_size is not None:  # SSD has one size
        return replace(loaded.card.input, size=scaling.fixed_size)
    if scaling is not None:
        scaling.min_size = (160,)
    return replace(loaded.card.input, size=160, resize=None)


def opened(name: str) -> tuple[circuits.Model, Tensor]:
    """The network with random weights, none of them zero, and two images."""
    loaded = build(name, weights="random")
    spec = _small_input(loaded)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in loaded.module.parameters():  # gains and heads that begin at zero hide what is behind them
            if p.numel() < 2 or float(p.float().std()) == 0:
                p.add_(0.2 * torch.randn(p.shape, generator=generator))
    model = circuits.Model(loaded.module, spec, name=name, card=loaded.card)
    images = torch.rand((2, *model.input.shape), generator=generator)
    return model, images


def check(name: str) -> Row:
    """Every verb on one network.

    Raises:
        Wrong: a verb gives another value than plain PyTorch.
    """
    model, images = opened(name)
    row = Row(name, model.input.hw)
    work = _Checks(model, images)
    for verb in VERBS:
        begin = time.perf_counter()
        try:
            getattr(work, verb.replace(" ", "_"))()
            row.outcomes[verb] = RIGHT
        except CircuitsError as error:
            row.outcomes[verb] = str(error)
        except Exception as error:
            error.add_note(f"{verb} on {name}")
            raise
        row.seconds[verb] = round(time.perf_counter() - begin, 1)
    return row


def _same(verb: str, value: Tensor, right: Tensor, rtol: float = 2e-3) -> None:
    if value.shape != right.shape:
        raise Wrong(f"{verb}: shape {tuple(value.shape)}, not {tuple(right.shape)}")
    off = float((value - right).abs().max())
    if not off <= rtol * float(right.abs().max()) + 1e-7:
        raise Wrong(f"{verb}: off by {off:.3g} of {float(right.abs().max()):.3g}")


class _Checks:
    def __init__(self, model: circuits.Model, images: Tensor) -> None:
        self.model, self.images = model, images
        self.fed = model.input.normalize(images)
        plain = [n for n in model.trunk if self._readable(n) and model.layers[n].size is not None]
        plain = plain or [n for n, v in model.layers.items() if self._readable(n) and v.size is not None]
        self.layer = plain[len(plain) // 2]
        before = plain[: len(plain) // 2]
        trunk = [n for n in model.trunk if model.layers[n].size is not None and model.layers[n].path is not None]
        self.pair = (trunk[len(trunk) // 2 - 1], trunk[len(trunk) // 2]) if len(trunk) > 1 else (self.layer, self.layer)
        self.source = before[-1] if before else self.layer

    def _readable(self, name: str) -> bool:
        layer = self.model.layers[name]
        return layer.path is not None and layer.base == name and layer.axes.layout in _LAYOUTS

    def _maps(self, name: str, out: Tensor) -> Tensor:
        """The output of a module as maps `(N, C, h, w)`, by its layout's definition."""
        layout, grid = self.model.layers[name].axes.layout, self.model.layers[name].size or (1, 1)
        if layout == "channels-last":
            return out.permute(0, 3, 1, 2)
        if layout == "tokens":  # those that are no patches come first
            if out.shape[1:] == (self.model.layers[name].channels, grid[0] * grid[1]):  # where they are mixed
                return out.unflatten(2, grid)
            patches = out[:, out.shape[1] - grid[0] * grid[1] :]
            return patches.transpose(1, 2).unflatten(2, grid)
        return out if out.ndim == 4 else out[:, :, None, None]

    @contextmanager
    def _hooked(self, name: str, act: Callable[[Tensor], Tensor | None]) -> Iterator[None]:
        """A plain hook on the call of the module that a layer is."""
        layer, calls = self.model.layers[name], 0

        def hook(_module: nn.Module, _inputs: Any, out: Any) -> Any:
            nonlocal calls
            calls += 1
            return act(out) if calls == layer.call + 1 else None

        handle = self.model.module.get_submodule(layer.path or "").register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()

    def _output(self, x: Tensor) -> Any:
        return self.model.module(x)

    def _through(self, replaced: str, acts: Tensor, read: str) -> Tensor:
        """Activations of `read` when `replaced` gives `acts`, by plain hooks."""
        outputs: list[Tensor] = []
        with self._hooked(replaced, lambda out: acts.view_as(out).clone()), self._hooked(read, outputs.append):  # type: ignore[arg-type]
            self._output(self.fed)
        return outputs[0]

    def capture(self) -> None:
        """Activations of up to 30 layers, bit for bit."""
        names = [n for n in self.model.layers if self._readable(n)]
        names = names[:: max(1, len(names) // 30)]
        acts = circuits.capture(self.model, self.images, at=names)
        for name in names:
            if not torch.equal(acts[name].reshape(-1), self._few(name).reshape(-1)):
                raise Wrong(f"capture of {name}")

    def _plain(self, name: str) -> Tensor:
        outputs: list[Tensor] = []
        with torch.no_grad(), self._hooked(name, lambda out: outputs.append(out.clone())):  # type: ignore[func-returns-value]
            self._output(self.fed)
        return outputs[0]

    def edit(self) -> None:
        """A channel set to zero, seen at the class scores (or at the end of the trunk)."""
        read = self._end()
        outputs: list[Tensor] = []

        def ablated(out: Tensor) -> Tensor:
            new = out.clone()
            self._maps(self.layer, new)[:, 1] = 0  # a view
            return new

        with torch.no_grad(), self._hooked(self.layer, ablated), self._hooked(read, outputs.append):  # type: ignore[arg-type]
            self._output(self.fed)
        with circuits.edit(self.model, [circuits.Ablate(f"{self.layer}:1")]):
            acts = circuits.capture(self.model, self.images, at=read)[read]
        _same("edit", acts.reshape(-1), self._maps(read, outputs[0]).reshape(-1))

    def _end(self) -> str:
        scores = self.model.class_scores
        if scores is not None and self.model.layers[scores].path is not None:
            return scores
        return [n for n in self.model.layers if self._readable(n)][-1]

    def _unit(self) -> tuple[str, int]:
        read = self._end()
        acts = self._few(read).flatten(2).amax(2)
        return read, int(acts.amin(0).argmax())

    def _few(self, name: str) -> Tensor:
        """Activations of a layer as maps, by plain hooks."""
        return self._maps(name, self._plain(name))

    def find(self) -> None:
        """Mean peaks of every unit on one image against the other, and its AUC of the half that reports."""
        images = torch.cat([self.images, self.images.flip(2)])
        findings = circuits.find(self.model, positive=images[:2], negative=images[2:], layer=self.layer, intervals=0)
        peaks = []
        for half in images.split(2):
            self.fed = self.model.input.normalize(half)
            peaks.append(self._few(self.layer).flatten(2).amax(2))
        self.fed = self.model.input.normalize(self.images)
        rows = sorted(findings.rows, key=lambda row: circuits.Unit.parse(row.unit).index or 0)
        for side, values in zip(("positive", "negative"), peaks, strict=True):
            _same("find", torch.tensor([getattr(row, f"mean_{side}") for row in rows]), values.mean(0), rtol=1e-5)
        # of two images a side, one ranks and one reports; which are chosen at random
        auc = torch.tensor([row.auc for row in rows])
        pairs = [(a > b).float() + 0.5 * (a == b).float() for a in peaks[0] for b in peaks[1]]
        if not any(torch.equal(auc, pair) for pair in pairs):
            raise Wrong("find: AUC")

    def scan(self) -> None:
        """Maximum, mean and share of active positions of every unit, by plain hooks."""
        with TemporaryDirectory() as store:
            unit_scan = circuits.scan(self.model, self.images, store, layers=[self.layer], plan=_PLAN).layer(self.layer)
            maps = self._few(self.layer)
            positive = maps.clamp(min=0)
            density = (maps > 0).float().mean((0, 2, 3))
            maximum = torch.from_numpy(unit_scan.maximum.copy())
            _same("scan: maximum", maximum.clamp(min=0), positive.amax((0, 2, 3)), rtol=1e-6)
            _same("scan: mean", torch.from_numpy(unit_scan.mean).float(), positive.mean((0, 2, 3)), rtol=1e-4)
            _same("scan: density", torch.from_numpy(unit_scan.density).float(), density, rtol=1e-6)

    def explain(self) -> None:
        """The top activating position of a unit and its response there, by plain hooks."""
        with TemporaryDirectory() as store:
            scanned = circuits.scan(self.model, self.images, store, layers=[self.layer], plan=_PLAN)
            maps = self._few(self.layer)
            unit = int(maps.amax((2, 3)).amin(0).argmax())
            dossier = circuits.explain(self.model, f"{self.layer}:{unit}", scanned)
            top = dossier.parts["responses"].top[0]  # type: ignore[attr-defined]
            best = maps[:, unit].flatten(1)
            width = maps.shape[3]
            image = int(best.amax(1).argmax())
            if (top.image, top.position) != (image, divmod(int(best[image].argmax()), width)):
                raise Wrong("explain: the top activating position")
            _same("explain", torch.tensor([top.value]), best.amax().view(1), rtol=1e-6)

    def visualize(self) -> None:
        """The response that is reported of an optimized image, by plain hooks on that image; it grew, or stayed."""
        maps = self._few(self.layer)
        unit = int(maps.std((0, 2, 3)).argmax())
        result = circuits.visualize(  # steps so small that each follows the gradient
            self.model, f"{self.layer}:{unit}", steps=4, rate=1e-3, size=self.model.input.hw, transforms=[], redirect=0,
            retries=0,
        )[0]  # fmt: skip
        self.fed = self.model.input.normalize(result.image[None])
        response = self._few(self.layer)[0, unit]
        self.fed = self.model.input.normalize(self.images)
        _same("visualize", torch.tensor([result.response, result.peak]), torch.stack([response.mean(), response.max()]))
        first, last = result.history[0], result.history[-1]
        if not last > first - 1e-6 * abs(first):  # random weights may leave a unit that no image moves
            raise Wrong("visualize: the objective fell")

    def polysemantic(self) -> None:
        """Shares of a unit's strongest parents on its top activating images, by autograd through plain hooks."""
        if self.source == self.layer:
            raise CircuitsError("not compared: the network has one readable layer alone")
        unit = int(self._few(self.layer).amax((2, 3)).amin(0).argmax())
        result = circuits.polysemantic(
            self.model, f"{self.layer}:{unit}", images=torch.cat([self.images, self.images.flip(2)]),
            source=self.source, deeper=None, n=4, smallest=2, draws=2,
        )  # fmt: skip
        if not result.rows:
            raise CircuitsError("not compared: the unit is active on fewer than four images")
        start, shares = self.source, []
        if self.model.graph is not None:
            start = self.model.start(self.source, self.layer)
        if self.model.layers[start].path is None:
            raise CircuitsError(f"not compared: {start} is a function, which plain hooks do not see")
        parents = result.best.clusters[0].parents
        for e in result.best.clusters[0].examples:
            image = (self.images if e.image < 2 else self.images.flip(2))[e.image % 2][None]
            self.fed = self.model.input.normalize(image)
            leaf = self._plain(start).requires_grad_()
            with torch.enable_grad():
                target = self._maps(self.layer, self._through(start, leaf, self.layer))
                gradient = torch.autograd.grad(target[0, unit, e.position[0], e.position[1]], leaf)[0]
            values = self._maps(start, gradient * leaf.detach()).sum((0, 2, 3))
            shares.append(values / values.clamp(min=0).sum())
        self.fed = self.model.input.normalize(self.images)
        mean = torch.stack(shares).mean(0)
        _same("polysemantic", torch.tensor([p.here for p in parents]), mean[[p.channel for p in parents]], rtol=5e-3)

    def attribute_input(self) -> None:
        """Gradient x image, by autograd."""
        self._attributed("input", "grad*act", 1)

    def attribute_layer(self) -> None:
        """Gradient x activation of a layer in the middle, by autograd through plain hooks."""
        self._attributed(self.source, "grad*act", 1)

    def integrated(self) -> None:
        """Integrated gradients of the image at four midpoints, by autograd."""
        self._attributed("input", "integrated", 4)

    def _attributed(self, source: str, method: Any, steps: int) -> None:
        read, unit = self._unit()
        attribution = circuits.attribute(
            self.model, self.images, source=source, target=f"{read}:{unit}", method=method, steps=steps
        )
        positions = attribution.positions
        if self.model.layers[attribution.start].path is None if source != "input" else False:
            raise CircuitsError(f"not compared: {attribution.start} is a function, which plain hooks do not see")
        if source == "input":
            start = self.images
        else:
            start = self._plain(attribution.start)
        total = torch.zeros_like(start)
        scales = [1.0] if method == "grad*act" else [(k + 0.5) / steps for k in range(steps)]
        for scale in scales:
            leaf = (start * scale).requires_grad_()
            with torch.enable_grad():
                acts = self._read(leaf, read) if source == "input" else self._through(attribution.start, leaf, read)
                maps = self._maps(read, acts)
                picked = torch.stack([maps[i, unit, y, x] for i, (y, x) in enumerate(positions)]).sum()
                total += torch.autograd.grad(picked, leaf)[0]
        right = total / len(scales) * start
        if source != "input":
            right = self._maps(attribution.start, right)
        _same(method, attribution.values, right)
        if source == "input" and read == self.model.class_scores:
            _same(f"{method} of captum", attribution.values, self._captum(method, steps, read, unit, positions))

    def _captum(self, method: str, steps: int, read: str, unit: int, positions: list[tuple[int, int]]) -> Tensor:
        """The same attribution to pixels by captum."""

        def scores(images: Tensor) -> Tensor:
            maps = self._maps(read, self._read(images, read))  # of the images again and again, step by step
            return torch.stack(
                [maps[i, unit, y, x] for i, (y, x) in enumerate(positions * (len(maps) // len(positions)))]
            )

        images = self.images.clone().requires_grad_()
        if method == "grad*act":
            return InputXGradient(scores).attribute(images).detach()  # type: ignore[no-any-return]
        integrated = IntegratedGradients(scores).attribute(images, n_steps=steps, method="riemann_middle")
        return integrated.detach()  # type: ignore[no-any-return]

    def _read(self, images: Tensor, name: str) -> Tensor:
        outputs: list[Tensor] = []
        with self._hooked(name, outputs.append):  # type: ignore[arg-type]
            self._output(self.model.input.normalize(images))
        return outputs[0]

    def weights(self) -> None:
        """Kernels between two layers, against gradients of the linearized module itself."""
        source, target = self.pair
        weights = circuits.expanded_weights(self.model, source=source, target=f"{target}:1")
        start, layers = weights.start, self.model.layers
        if layers[start].path is None:
            raise CircuitsError(f"not compared: {start} is a function, which plain hooks do not see")
        seen: dict[str, Tensor] = {}
        gray = self.model.input.normalize(torch.full((1, *self.model.input.shape), 0.5)).requires_grad_()
        keep = {n: self._hooked(n, lambda out, n=n: seen.__setitem__(n, out)) for n in (start, target)}  # type: ignore[misc, func-returns-value]
        with torch.enable_grad(), linearized(), keep[start], keep[target]:
            self._output(gray)
        maps = layers[target].axes.maps(seen[target])
        h, w = maps.shape[2:]
        gradient = layers[start].axes.maps(torch.autograd.grad(maps[0, 1, h // 2, w // 2], seen[start])[0])
        window = weights.patches(gradient, [(h // 2, w // 2)])[0]
        inside = window != 0  # a kernel may be wider than the map
        _same("weights", weights.kernels[0] * inside, window)
        if abs(float(window.norm() - gradient.norm())) > 1e-3 * float(gradient.norm()):
            raise Wrong("weights: something is read outside of the kernel")

    def trace(self) -> None:
        """Edges by gradient x activation, against the attribution by hand of the same layer."""
        read, unit = self._unit()
        circuit = circuits.trace(
            self.model, f"{read}:{unit}", images=self.images, layers=[self.source], by="attribution",
            width=self.model.layers[self.source].channels, n_positions=len(self.images), n_examples=1,
        )  # fmt: skip
        by_hand = circuits.attribute(self.model, self.images, source=self.source, target=f"{read}:{unit}")
        mean = by_hand.units.mean(dim=0)  # itself held against autograd
        strengths = torch.zeros_like(mean)
        for edge in circuit.edges:
            strengths[circuits.Unit.parse(edge.source).index or 0] = edge.strength
        if not circuit.edges:
            raise Wrong("trace: no edge")
        if bool((by_hand.response > 0).all()):  # trace takes the images on which the target is active
            _same("trace", strengths, mean)

    def SAE(self) -> None:
        """Vectors that an SAE is trained on, against rows of the activations."""
        site = sae.VisionSite(self.model, self.layer)
        vectors = torch.cat([block.vectors for block in site.blocks(self.images)])
        acts = self._few(self.layer)
        _same("SAE", vectors, acts.movedim(1, -1).reshape(-1, acts.shape[1]), rtol=0)


_NOT_RUN = "not run"
"""Of a verb that came to the table after a network was checked."""


def page(rows: list[Row]) -> str:
    """docs/models.md."""
    missing = [name for name in NAMES if name not in {row.name for row in rows}]
    lines = [
        "# Networks of other libraries",
        "",
        f"What each verb gives on {len(rows)} networks of torchvision and timm with random weights, written by",
        "`python -m tools.model_table`. *right*: the value that plain PyTorch gives (hooks, autograd, gradients of the",
        "linearized module; of attribution to pixels also captum). Otherwise the refusal, in a line below the table;",
        "none of them has another outcome. Networks for segmentation and detection are given small images.",
        f"`pytest -m slow tests/contract/test_model_table.py` checks {len(NAMES)} networks in this way"
        + (f"; not in the table yet: {', '.join(missing)}." if missing else "."),
        "",
        "| network | input | " + " | ".join(VERBS) + " |",
        "|---|---|" + "---|" * len(VERBS),
    ]
    notes: dict[str, int] = {}
    for row in rows:
        cells = []
        for verb in VERBS:
            outcome = row.outcomes.get(verb, _NOT_RUN)
            if outcome == _NOT_RUN:
                cells.append(outcome)
                continue
            note = 0 if outcome == RIGHT else notes.setdefault(outcome, len(notes) + 1)
            word = "not compared" if outcome.startswith("not compared") else "refused"
            cells.append(f"{word} ({note})" if note else RIGHT)
        lines.append(f"| {row.name} | {row.size[0]}x{row.size[1]} | " + " | ".join(cells) + " |")
    lines += ["", *(f"{number}. {text}" for text, number in notes.items())]
    return "\n".join(lines) + "\n"


def rows_of(text: str) -> dict[str, Row]:
    """The rows of a page, by network: what `page` makes the page of again."""
    lines = text.splitlines()
    notes = {int(m[1]): m[2] for m in (re.fullmatch(r"(\d+)\. (.+)", line) for line in lines) if m}
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    verbs, rows = table[0][2:], {}
    for name, size, *cells in table[2:]:
        height, _, width = size.partition("x")
        outcomes = {verb: notes[int(cell[:-1].split("(")[1])] if cell.endswith(")") else cell
                    for verb, cell in zip(verbs, cells, strict=True)}  # fmt: skip
        rows[name] = Row(name, (int(height), int(width)), outcomes)
    return rows


def main(names: list[str]) -> None:
    """Check the networks named, or all that the page does not have yet, and put their rows on the page."""
    for name in names or [n for n in NAMES if n not in rows_of(PAGE.read_text())]:
        row = check(name)
        print(name, {verb: (text[:60], row.seconds.get(verb)) for verb, text in row.outcomes.items()}, flush=True)
        rows = rows_of(PAGE.read_text()) | {name: row}
        PAGE.write_text(page([rows[n] for n in NAMES if n in rows]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help=f"networks; without any, those that {PAGE.name} does not have")
    main(parser.parse_args().names)
