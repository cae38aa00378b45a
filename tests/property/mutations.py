"""Damage to files: what a stranger, a bad disk or a half-finished copy can make of them."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Iterator
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

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
    """A safetensors file cut short, with bytes flipped, with a damaged head, or with another tensor in place of one."""
    kind = rng.random()
    if kind < 0.15:
        return content[: rng.randrange(len(content))]
    if kind < 0.3:
        flipped = bytearray(content)
        for _ in range(rng.choice([1, 1, 10])):
            flipped[rng.randrange(len(flipped))] = rng.randrange(256)
        return bytes(flipped)
    size = struct.unpack("<Q", content[:8])[0]
    head, body = json.loads(content[8 : 8 + size]), content[8 + size :]
    if kind < 0.45 and "__metadata__" in head:
        entries = head["__metadata__"]
        name = rng.choice(sorted(entries))
        entries[name] = damaged_json(entries[name], rng).decode("utf-8", "replace")
        text = json.dumps(head).encode()
        return struct.pack("<Q", len(text)) + text + body
    tensors = load(content)
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
    try:
        return save({key: t.contiguous() for key, t in tensors.items()}, head.get("__metadata__"))
    except (SafetensorError, ValueError):  # a type that the format has not
        return content[:20]
