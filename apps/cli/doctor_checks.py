"""The checks of `circuits doctor`: each function yields findings, with the command that fixes what is broken."""

from __future__ import annotations

import os
import platform
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib import metadata, util
from pathlib import Path

EXTRAS = {
    "cli": ("tyro", "rich"),
    "app": ("streamlit", "plotly"),
    "lm": ("transformers",),
    "lucent": ("lucent",),
    "timm": ("timm",),
    "bench": ("captum", "sae_lens", "dictionary_learning", "sparsify", "visaebench"),
    "dev": ("pytest", "ruff", "mypy", "hypothesis", "captum"),
}
"""Extra -> modules that it brings, as they are imported."""

SCARCE = 2 * 2**30
"""Bytes of disk below which a note is made: the largest download with room to convert it."""


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        group: heading.
        name: what is checked.
        state: "ok", "missing" (something optional is not installed) or "broken" (something fails).
        detail: version, path or reason.
        fix: command that fixes it.
    """

    group: str
    name: str
    state: str
    detail: str
    fix: str = ""

    def describe(self) -> dict[str, str]:
        """Ready for JSON. By hand: the base of results imports torch, which may be what is broken."""
        entries = {"what": self.name, "state": self.state, "found": self.detail, "mend": self.fix}
        return {"group": self.group, **entries}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def python() -> Iterator[Finding]:
    """Python and the packages without which nothing works."""
    version = platform.python_version()
    new = sys.version_info >= (3, 11)
    yield Finding(
        "Python",
        "python",
        "ok" if new else "broken",
        f"{version} ({sys.executable})",
        "" if new else "Python 3.11 or later",
    )
    own = _version("vision-circuits")
    from zoo.common.installation import MEND, installation_problem

    problem = installation_problem()
    detail = problem or own or "run from its sources"
    yield Finding("Python", "vision-circuits", "broken" if problem else "ok", detail, MEND if problem else "")
    for name in ("numpy", "pillow", "safetensors", "scikit-learn", "matplotlib", "networkx"):
        there = _version(name)
        yield Finding(
            "Python",
            name,
            "ok" if there else "broken",
            there or "not installed",
            "" if there else f"pip install {name}",
        )


def torch_and_devices(device: str | None) -> Iterator[Finding]:
    """torch, whether torchvision was made for it, and the devices."""
    group, together = "PyTorch and devices", "pip install --force-reinstall torch torchvision  (both in one command)"
    try:
        import torch
    except Exception as error:  # a half-made installation fails in many ways
        yield Finding(group, "torch", "broken", f"{type(error).__name__}: {error}"[:200], together)
        return
    yield Finding(group, "torch", "ok", str(torch.__version__))
    try:
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0, 1, 1]]), torch.ones(1), 0.5)  # compiled against this very torch
        yield Finding(group, "torchvision", "ok", f"{torchvision.__version__}, made for this torch")
    except Exception as error:
        yield Finding(
            group, "torchvision", "broken", f"does not match torch: {type(error).__name__}: {error}"[:200], together
        )
    yield Finding(group, "cpu", "ok", f"{os.cpu_count()} cores, {torch.get_num_threads()} threads in use")
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            memory = torch.cuda.get_device_properties(index).total_memory / 2**30
            yield Finding(group, f"cuda:{index}", "ok", f"{torch.cuda.get_device_name(index)}, {memory:.0f} GiB")
    elif torch.backends.mps.is_available():
        yield Finding(group, "mps", "ok", "Apple GPU")
    else:
        yield Finding(group, "gpu", "missing", "none that torch can use; everything works on the CPU")
    from circuits.network.model import best_device
    from zoo.errors import CircuitsError

    try:
        yield Finding(group, "used by default" if device is None else "--device", "ok", str(best_device(device)))
    except CircuitsError as error:
        yield Finding(group, "--device", "broken", str(error), "leave --device out")


def kernels(device: str | None) -> Iterator[Finding]:
    """How a training step of an SAE is computed here, for a few usual shapes."""
    group = "Steps of SAE training"
    try:
        from circuits.network.model import best_device
        from sae.architectures.kernels import describe

        rows = describe(best_device(device))
    except Exception as error:  # torch is broken, or the device is not there: reported above
        yield Finding(group, "kernels", "broken", f"{type(error).__name__}: {error}"[:200])
        return
    for row in rows:
        saved = row["dense"] / row["sparse"]
        what = f"{row['d']} x {row['m']}, k {row['k']}"
        yield Finding(group, what, "ok", f"{row['path']}: {row['reason']} ({saved:.1f} times fewer operations)")


def extras() -> Iterator[Finding]:
    """The optional extras."""
    for extra, modules in EXTRAS.items():
        absent = [name for name in modules if util.find_spec(name) is None]
        detail = ", ".join(modules) if not absent else f"without {', '.join(absent)}"
        fix = f"pip install 'vision-circuits[{extra}]'" if absent else ""
        yield Finding("Extras", extra, "missing" if absent else "ok", detail, fix)


def weights() -> Iterator[Finding]:
    """Where weights are looked for, and what is missing."""
    try:
        from zoo.registry import cards, status
        from zoo.weights.loading import cache_folder, user_folder
    except Exception as error:  # torch is broken, and was reported above
        yield Finding("Weights", "models", "broken", f"{type(error).__name__}: {error}"[:200])
        return
    folder = user_folder()
    variable = Finding("Weights", "$CIRCUITS_WEIGHTS", "ok", "not set; only the cache is searched")
    if folder is not None:
        there = folder.is_dir()
        variable = replace(
            variable, detail=str(folder) + ("" if there else ": no such folder"), state="ok" if there else "broken"
        )
        variable = replace(
            variable,
            fix="" if there else f"mkdir -p {shlex.quote(str(folder))}, or export CIRCUITS_WEIGHTS=another folder",
        )
    yield variable
    for name, card in cards().items():
        card_status = status(card)
        needed = card.weights is not None and card.weights.packaged
        fix = ""
        if not card_status.available and card.weights is not None:
            if needed:
                fix = "reinstall vision-circuits"
            elif card.weights.url:
                fix = "is fetched on first use; or give it with --weights FILE"
            else:
                fix = f"cp {card.weights.filename} {shlex.quote(f'{folder or cache_folder()}/')}"
        state = "ok" if card_status.available else "broken" if needed else "missing"
        yield Finding(
            "Weights",
            name,
            state,
            f"{card_status.path} ({card_status.how})" if card_status.path else card_status.how,
            fix,
        )


def folders() -> Iterator[Finding]:
    """The cache and the disks."""
    try:
        from zoo.common.files import home
    except Exception:  # reported above
        return
    cache = home()
    existing = next(p for p in (cache, *cache.absolute().parents) if p.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
        yield Finding("Folders", "cache", "ok", f"{cache}, can be written")
    except OSError as error:
        fix = "export CIRCUITS_HOME=a folder that can be written to"
        yield Finding("Folders", "cache", "broken", f"{cache}: {error.strerror}", fix)
    for label, folder in (("disk of the cache", existing), ("disk of this folder", Path.cwd())):
        free = shutil.disk_usage(folder).free
        plenty = free > SCARCE
        yield Finding(
            "Folders",
            label,
            "ok" if plenty else "missing",
            f"{free / 2**30:.1f} GiB free",
            "" if plenty else "free some space",
        )
