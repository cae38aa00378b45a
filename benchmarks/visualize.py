"""Feature visualization against torch-lucent 0.1.8 and against bare forward and backward passes, in turn.

One network (GoogLeNet, random weights unless they are here), a few steps in turn, seconds per step and image:

- bare: forward to the layer and backward to the image, frozen weights, at the same batch and size: the floor;
- ours: a step of `visualize`, that is parametrization, transformations, the floor, and Adam;
- Lucent: a step of its `render_vis`, at its own sizes (128 pixels, enlarged to 224).

With `--quality` also the responses of units to visualizations of ours and of Lucent's after equal steps, evaluated at
128 and at 224 pixels. With `--repeat N` N renders in a row, for slowing down and for memory.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from _timing import in_turn
from torch import Tensor
from torch.nn import functional as F

import circuits
from circuits.network.hooks import frozen, read
from circuits.visualization import objectives, visualize
from circuits.visualization.optimization import ascend
from circuits.visualization.parametrizations import Fourier
from circuits.visualization.render import default_batch_size, default_size, jobs_of
from circuits.visualization.settings import RenderSettings
from circuits.visualization.transforms import Pipeline, standard

LAYERS = ("mixed3a", "mixed4c", "mixed5b")
STEPS = 8
"""Steps in one turn."""


def main() -> None:
    """Time, and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=None)
    parser.add_argument("--layers", nargs="+", default=list(LAYERS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--steps", type=int, default=128, help="steps of --quality")
    parser.add_argument("--units", type=int, default=16, help="units of --quality")
    parser.add_argument("--repeat", type=int, default=0)
    parser.add_argument("--turn", type=int, default=STEPS, help="steps in one turn")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    model = _model(options.device)
    print(f"torch {torch.__version__}, {model.device}, {torch.get_num_threads()} threads, weights {model.source}")
    if options.repeat:
        repeated(model, options.repeat)
    elif options.quality:
        for layer in options.layers:
            quality(model, layer, options.steps, options.units)
    else:
        for layer in options.layers:
            speed(model, layer, options.rounds, options.turn)


def _model(device: str | None) -> circuits.Model:
    try:
        return circuits.load("googlenet-bvlc", device=device)
    except circuits.CircuitsError:
        return circuits.load("googlenet-bvlc", weights="random", device=device)


def speed(model: circuits.Model, layer: str, rounds: int, steps: int = STEPS) -> None:
    """Seconds per step and image of one layer."""
    job = jobs_of(model, f"{layer}:0", RenderSettings())
    own = default_size(model, job)[0]
    setups = {
        "one unit, 128 px at 224": (1, 128, 224),
        "16 units, 128 px at 224": (16, 128, 224),
        f"one unit, default size {own}": (1, own, own),
        f"16 units, default size {own}": (16, own, own),
    }
    contenders: dict[str, Callable[[], object]] = {}
    counts: dict[str, int] = {}
    for name, (count, size, show) in setups.items():
        batch = min(count, default_batch_size(model, job, (show, show)))
        contenders[f"ours, {name}"] = _ours(model, layer, count, batch, size, show, steps)
        contenders[f"bare, {name}"] = _bare(model, layer, batch, show, steps)
        counts |= {f"ours, {name}": count, f"bare, {name}": batch}
    lucent = _lucent(model, layer, steps)
    if lucent is not None:
        contenders["Lucent, one unit, 128 px at 224"] = lucent
        counts["Lucent, one unit, 128 px at 224"] = 1
    seconds = in_turn(contenders, rounds)
    each = {name: s / counts[name] / steps for name, s in seconds.items()}
    peer = each.get("Lucent, one unit, 128 px at 224")
    print(f"\n{layer}: seconds per step and image, median of {rounds} runs of {steps} steps")
    for name in contenders:
        against = f"  {peer / each[name]:5.2f}x Lucent" if peer else ""
        floor = each.get(name.replace("ours", "bare"))
        over = f"  {100 * (each[name] / floor - 1):+5.1f} % over bare" if name.startswith("ours") and floor else ""
        print(f"  {name:<46} {each[name]:8.4f}{against}{over}")


def _ours(
    model: circuits.Model, layer: str, count: int, batch: int, size: int, show: int, steps: int
) -> Callable[[], None]:
    """A few steps for `count` units, as many at once as `visualize` takes."""
    goal = objectives.stack([objectives.channel(layer, i) for i in range(batch)])
    image = Fourier()(range(batch), (size, size), model.input.channels, model.device)
    pipeline = Pipeline(standard(size), out=(show, show), seeds=range(batch), device=model.device)

    def run() -> None:
        for _ in range(count // batch):
            ascend(model, goal, image, pipeline, RenderSettings(steps=steps, redirect=0))
        _wait(model)

    return run


def _bare(model: circuits.Model, layer: str, count: int, show: int, steps: int) -> Callable[[], None]:
    images = torch.rand(count, model.input.channels, show, show, device=model.device)
    rows = torch.arange(count, device=model.device)
    target = model.layers[layer]

    def run() -> None:
        with frozen(model.module):
            for _ in range(steps):
                x = images.clone().requires_grad_(True)
                acts = read(model, x.contiguous(memory_format=torch.channels_last), [target])[layer]
                acts[rows, rows].flatten(1).mean(1).sum().backward()
        _wait(model)

    return run


def _wait(model: circuits.Model) -> None:
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def _lucent(model: circuits.Model, layer: str, steps: int) -> Callable[[], object] | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            from lucent.optvis import render
    except ImportError:
        print("torch-lucent is not installed (pip install 'vision-circuits[lucent]'): its rows are left out")
        return None
    _lucent_call(render, model, f"{layer}:0", 1)

    def run() -> None:
        _lucent_call(render, model, f"{layer}:0", steps)
        _wait(model)

    return run


def _lucent_call(render: Any, model: circuits.Model, objective: str, steps: int) -> Any:
    """Its `render_vis`, its hooks taken off afterwards (it leaves them; they would slow it down from call to call)."""
    preprocess = [lambda x: model.input.normalize(x)]
    try:
        return render.render_vis(
            model.module,
            objective,
            transforms=_their_transforms() + preprocess,
            preprocess=False,
            thresholds=(steps,),
            progress=False,
            show_image=False,
        )[0]
    finally:
        for module in model.module.modules():
            module._forward_hooks.clear()


def _their_transforms() -> list[Any]:
    from lucent.optvis import transform

    return list(transform.standard_transforms)


def quality(model: circuits.Model, layer: str, steps: int, units: int) -> None:
    """Mean response of units to visualizations of ours and of Lucent's after the same number of steps, at two sizes."""
    from lucent.optvis import render

    chosen = [int(i) for i in torch.randperm(model.layers[layer].channels, generator=torch.Generator().manual_seed(0))]
    chosen = chosen[:units]
    torch.manual_seed(0)
    began = time.perf_counter()
    theirs = torch.cat(
        [torch.from_numpy(_lucent_call(render, model, f"{layer}:{i}", steps)).permute(0, 3, 1, 2) for i in chosen]
    )
    print(f"\n{layer}, {units} units, {steps} steps; mean responses at 128 and at 224 px")
    sets = {"Lucent, 128 px at 224": (theirs, time.perf_counter() - began)}
    # Lucent pads 128 pixels to 152 before it enlarges them to 224: ours at 188 has the same scale
    for name, sizes in {"ours, 128 px at 188": {"size": 128, "show": 188}, "ours, default size": {}}.items():
        began = time.perf_counter()
        results = visualize(model, [f"{layer}:{i}" for i in chosen], steps=steps, retries=0, **sizes)
        sets[name] = (torch.stack([r.image for r in results]), time.perf_counter() - began)
    peers = [_evaluated(model, layer, chosen, theirs, size) for size in (128, 224)]
    for name, (images, seconds) in sets.items():
        values = [_evaluated(model, layer, chosen, images, size) for size in (128, 224)]
        ratios = [float(v.mean() / p.mean()) for v, p in zip(values, peers, strict=True)]
        higher = [int((v >= p).sum()) for v, p in zip(values, peers, strict=True)]
        print(
            f"  {name:<30} {seconds:5.0f} s  {float(values[0].mean()):8.1f} {float(values[1].mean()):8.1f}"
            f"  {ratios[0]:.2f}x {ratios[1]:.2f}x Lucent's, as high for {higher[0]} and {higher[1]} of {units}",
            flush=True,
        )


@torch.no_grad()
def _evaluated(model: circuits.Model, layer: str, units: list[int], images: Tensor, size: int) -> Tensor:
    resized = F.interpolate(images, (size, size), mode="bilinear", align_corners=False, antialias=True)
    acts = torch.cat([read(model, p[None], [model.layers[layer]])[layer] for p in resized])
    return acts[torch.arange(len(units)), units].flatten(1).mean(1)


def repeated(model: circuits.Model, count: int) -> None:
    """Do renders in a row slow down or grow?"""
    times, memory, hooks = [], [], []
    for i in range(count):
        began = time.perf_counter()
        visualize(model, f"mixed3a:{i % 256}", steps=2, size=64, retries=0)
        times.append(time.perf_counter() - began)
        if i in (count // 10, count - 1):
            gc.collect()
            memory.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
            hooks.append(sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.module.modules()))
    tenth = max(1, count // 10)
    first, last = (sorted(times[part])[tenth // 2] for part in (slice(0, tenth), slice(-tenth, None)))
    print(f"{count} renders: median of the first tenth {first:.4f} s, of the last {last:.4f} s; ")
    print(f"peak memory after a tenth {memory[0]:.0f} MB, at the end {memory[-1]:.0f} MB; hooks {hooks}")


if __name__ == "__main__":
    main()
