"""Damage to files: what a stranger, a bad disk or a half-finished copy can make of them."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from zoo.common import result_files, stored

HOSTILE: list[Any] = [
    None, True, -1, 0, 1, 2**31, 2**63, 2**70, -(2**70), 1e308, -1e308, 0.5, float("inf"), float("nan"), "", "x", "\0",
    "\udc80", "../../etc/passwd", "/dev/zero", "9" * 5000, [], {}, [[]], [None], {"a": 1}, "∞" * 300,
]  # fmt: skip
"""Values that stand where others belong."""
RAW = [b"", b"[", b"[" * 60_000, b'{"a":' * 60_000, b"null", b"[]", b"1e999", b"\xff\xfe", b"\0{}"]
"""Documents that are none."""


def _places(document: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield at
    if isinstance(document, dict):
        for key in document:
            yield from _places(document[key], (*at, key))
    elif isinstance(document, list):
        for index in range(min(len(document), 6)):
            yield from _places(document[index], (*at, index))


def damaged_json(text: str, rng: random.Random) -> bytes:
    """A JSON document with one to three entries gone, doubled, cut, or replaced by something hostile."""
    kind = rng.random()
    if kind < 0.05:
        return rng.choice(RAW)
    if kind < 0.08:
        return text.encode()[: rng.randrange(len(text))]
    document = json.loads(text)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        places = [place for place in _places(document) if place]
        if not places:
            break
        *way, last = rng.choice(places)
        parent = document
        for step in way:
            parent = parent[step]
        old, what = parent[last], rng.random()
        if what < 0.2:
            del parent[last]
        elif what < 0.3 and isinstance(parent, list):
            parent.extend(copy.deepcopy(parent))
        elif what < 0.35 and isinstance(old, list):
            parent[last] = old[: len(old) // 2]
        elif what < 0.4 and isinstance(old, int | float) and not isinstance(old, bool):
            parent[last] = rng.choice([old + 0.5, old * 1000, -old, str(old)])
        else:
            parent[last] = rng.choice(HOSTILE)
    return json.dumps(document).encode()


def damaged_tensors(content: bytes, rng: random.Random) -> bytes:
    """A safetensors file cut short, with bytes flipped, with a damaged head, or with another tensor in place of one.

    Digests in its head are mostly made good again: they show accidents and keep nobody out.
    """
    kind = rng.random()
    if kind < 0.15:
        return content[: rng.randrange(len(content))]
    if kind < 0.3:
        return damaged_bytes(content, rng)
    size = struct.unpack("<Q", content[:8])[0]
    entries = json.loads(content[8 : 8 + size]).get("__metadata__")
    tensors = load(content)
    if entries and (kind < 0.55 or not tensors):
        name = rng.choice(sorted(entries))
        text = entries[name] if entries[name][:1] in "{[" else json.dumps(entries[name])
        entries[name] = damaged_json(text, rng).decode("utf-8", "replace")
    elif tensors:
        _damage_one(tensors, rng)
    if entries and rng.random() < 0.9:
        entries = _with_digests(entries, tensors)
    try:
        return save({key: t.contiguous() for key, t in tensors.items()}, entries)
    except (SafetensorError, ValueError):  # a type that the format has not
        return content[:20]


def _damage_one(tensors: dict[str, torch.Tensor], rng: random.Random) -> None:
    name = rng.choice(sorted(tensors))
    old = tensors[name]
    kinds = [torch.float64, torch.int32, torch.bool, torch.complex64, torch.float16, torch.uint8]
    value = rng.choice([1e4, float("nan"), float("inf"), -1.0]) if old.is_floating_point() else rng.choice([-1, 2, 100])
    changed = {
        "less": lambda: old[: len(old) // 2] if old.ndim else old[None],
        "kind": lambda: old.to(rng.choice(kinds)),
        "values": lambda: torch.full_like(old, value),
        "flat": lambda: old.flatten(),
        "deeper": lambda: old[None],
        "empty": lambda: torch.zeros(0),
        "turned": lambda: old.transpose(0, -1) if old.ndim > 1 else old.repeat(2),
    }
    what = rng.choice(["gone", "more", *changed])
    if what == "gone":
        del tensors[name]
    else:
        tensors["more" if what == "more" else name] = old.clone() if what == "more" else changed[what]()


def _with_digests(entries: dict[str, str], tensors: dict[str, torch.Tensor]) -> dict[str, str]:
    """The head of one of our files with the digests that its tensors and its fields have now."""
    with contextlib.suppress(ValueError, RecursionError):
        about = json.loads(entries["about"]) if "about" in entries else None
        if isinstance(about, dict) and isinstance(about.get("digests"), dict):
            digests = {name: stored._digest(t.contiguous()) for name, t in tensors.items()}
            made_good = about | {"digests": digests}
            if "result" in about:
                made_good["digest"] = result_files._digest(about["result"])
            return entries | {"about": json.dumps(made_good)}
    return entries


def damaged_bytes(content: bytes, rng: random.Random) -> bytes:
    """A file of any kind with a few bytes changed."""
    flipped = bytearray(content)
    for _ in range(rng.choice([1, 1, 10])):
        flipped[rng.randrange(len(flipped))] = rng.randrange(256)
    return bytes(flipped)


def damaged(name: str, content: bytes, rng: random.Random) -> bytes:
    """The content of a file, damaged as its name says that it can be; of other kinds bytes change, or the end lacks."""
    if not content:
        return b"\0"
    if name.endswith(".json"):
        return damaged_json(content.decode("utf-8"), rng)
    if name.endswith((".safetensors", ".result")):
        return damaged_tensors(content, rng)
    return damaged_bytes(content, rng) if rng.random() < 0.7 else content[: rng.randrange(len(content))]
