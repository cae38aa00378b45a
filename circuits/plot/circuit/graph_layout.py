"""Where everything of a circuit graph goes, in pixels; drawn by `graph` (matplotlib) and `svg` (the report).

Layers are columns, sources to the left of their targets. The kernels of a unit stand in a stack right
behind it, one per target, each at the start of its own line, so that no two of them can overlap. What a
node receives from units not shown is a gray box in the column of its sources.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from circuits.plot.drawing.canvas import Box
from circuits.plot.drawing.palette import shared_scale
from circuits.tracing.circuit import Circuit, Edge, Node, Rest

MARGIN, HEAD, FOOT = 28.0, 58.0, 48.0
TILE_GAP = 3.0
ROW_GAP = 13.0
LINE_HEIGHT = 16.0
STUB, NUMBER = 14.0, 54.0  # from an image to its kernel; room for the number behind the kernel
REST_HEIGHT = 30.0
SCALE_HEIGHT, SCALE_WIDTH = 24.0, 290.0  # one color bar of the legend
THICK, THIN = 7.0, 1.3
ARROW = 9.0

Point: TypeAlias = tuple[float, float]


@dataclass(frozen=True)
class PlacedNode:
    """A unit: `box` holds `rows` by `columns` tiles of `tile` pixels; its text stands below."""

    node: Node
    box: Box
    rows: int
    columns: int
    tile: float


@dataclass(frozen=True)
class PlacedEdge:
    """A line from `start` to `end`, `width` thick; `kernel` is its thumbnail (None for what is not shown).

    `source` is where the line leaves the image, left of the kernel; up to `bend` it runs level, past all
    kernels and numbers of its column. `strength` is what the line carries.
    """

    edge: Edge | None
    rest: Rest | None
    strength: float
    kernel: Box | None
    source: Point
    start: Point
    bend: float
    end: Point
    width: float


@dataclass(frozen=True)
class PlacedRest:
    """The gray box for the units not shown."""

    rest: Rest
    box: Box


@dataclass(frozen=True)
class Layout:
    """A circuit graph laid out.

    Attributes:
        width, height: of the page.
        headings: `(x, layer name)` of the columns.
        scales: target layer -> the weight that is fully colored in kernels into that layer.
    """

    width: float
    height: float
    nodes: tuple[PlacedNode, ...]
    rests: tuple[PlacedRest, ...]
    edges: tuple[PlacedEdge, ...]
    headings: tuple[tuple[float, str], ...]
    scales: dict[str, float]


@dataclass
class _Item:
    """A node or a rest while it is being placed."""

    node: Node | None
    rest: Rest | None
    out: list[Edge]
    height: float
    anchor: float  # from the item's top to the middle of its image
    rank: float = 0.0
    y: float = 0.0

    @property
    def middle(self) -> float:
        return self.y + self.anchor


@dataclass(frozen=True)
class _Column:
    layer: str
    rows: int
    columns: int
    tile: float
    kernel: float
    items: list[_Item]

    @property
    def size(self) -> tuple[float, float]:
        return (
            self.columns * (self.tile + TILE_GAP) - TILE_GAP,
            self.rows * (self.tile + TILE_GAP) - TILE_GAP,
        )


def scales(circuit: Circuit) -> dict[str, float]:
    """Per target layer the largest weight of the kernels into it: one color scale for all of them."""
    layer = {n.unit: n.layer for n in circuit.nodes}
    into: dict[str, list[Edge]] = {}
    for edge in circuit.edges:
        if edge.target in layer:
            into.setdefault(layer[edge.target], []).append(edge)
    return {name: shared_scale(e.kernel for e in edges) for name, edges in into.items()}


def layout(circuit: Circuit) -> Layout:
    """Lay out the nodes, kernels and lines of a circuit."""
    columns = _columns(circuit)
    height = _place_rows(columns)
    # columns[0] holds the target, on the right; x runs from the deepest column on
    x, lefts = MARGIN, [0.0] * len(columns)
    for i in range(len(columns) - 1, -1, -1):
        lefts[i] = x
        x += columns[i].size[0]
        if i:
            # steep lines are hard to follow: the taller the column, the more room to bend
            x += STUB + columns[i].kernel + NUMBER + min(150.0, 70.0 + 0.1 * height)
    boxes: dict[str, Box] = {}
    nodes, rests = [], []
    for column, left in zip(columns, lefts, strict=True):
        width, tall = column.size
        for item in column.items:
            if item.node is not None:
                box = Box(left, item.middle - tall / 2, width, tall)
                boxes[item.node.unit] = box
                nodes.append(PlacedNode(item.node, box, column.rows, column.columns, column.tile))
            elif item.rest is not None:
                rests.append(PlacedRest(item.rest, Box(left, item.y, width, REST_HEIGHT)))
    bars = scales(circuit)
    rows = -(-len(bars) // bars_per_row(x + MARGIN))
    edges = _lines(columns, lefts, boxes, {id(r.rest): r.box for r in rests})
    headings = tuple((left, column.layer) for column, left in zip(columns, lefts, strict=True))
    total = height + FOOT + rows * SCALE_HEIGHT
    return Layout(x + MARGIN, total, tuple(nodes), tuple(rests), tuple(edges), headings, bars)


def bars_per_row(width: float) -> int:
    """Color bars that stand side by side in the legend of a page `width` wide."""
    return max(1, int((width - 2 * MARGIN) // SCALE_WIDTH))


def _columns(circuit: Circuit) -> list[_Column]:
    order = {layer: i for i, layer in enumerate(circuit.layers)}
    column_number = {n.unit: order.get(n.layer, n.depth) for n in circuit.nodes}
    used = sorted(set(column_number.values()))
    dense = {p: i for i, p in enumerate(used)}
    column_of = {unit: dense[p] for unit, p in column_number.items()}
    edges = [e for e in circuit.edges if e.source in column_of and e.target in column_of]
    out: dict[str, list[Edge]] = {}
    for edge in edges:
        out.setdefault(edge.source, []).append(edge)
    rests_in: dict[int, list[Rest]] = {}
    for rest in circuit.rest:
        if rest.target in column_of and (rest.count or rest.strength):
            rests_in.setdefault(column_of[rest.target] + 1, []).append(rest)
        if rest.target in column_of and rest.error is not None:  # a box of its own
            rests_in.setdefault(column_of[rest.target] + 1, []).append(replace(rest, count=0, strength=rest.error))
    columns: list[_Column] = []
    ranks: dict[str, float] = {}
    for c in range(max([len(used), *(k + 1 for k in rests_in)])):
        nodes = [n for n in circuit.nodes if column_of[n.unit] == c]
        small = 62.0 if len(nodes) <= 6 else 54.0 if len(nodes) <= 10 else 46.0
        rows, tiles, tile = (2, 2, 78.0) if c == 0 else (1, 3, small)
        most = max((len(out.get(n.unit, ())) for n in nodes), default=1)
        kernel = 44.0 if most <= 2 else 36.0 if most <= 4 else 28.0
        layer = nodes[0].layer if nodes else (circuit.layers[c] if c < len(circuit.layers) else "")
        column = _Column(layer, rows, tiles, tile, kernel, [])
        for node in nodes:
            column.items.append(_node_item(node, out.get(node.unit, []), column, ranks))
        for rest in rests_in.get(c, []):
            item = _Item(None, rest, [], REST_HEIGHT, REST_HEIGHT / 2, ranks.get(rest.target, 0.0) + 0.25)
            column.items.append(item)
        column.items.sort(key=_order)
        for i, item in enumerate(column.items):
            if item.node is not None:
                ranks[item.node.unit] = float(i)
        columns.append(column)
    return columns


def _node_item(node: Node, out: list[Edge], column: _Column, ranks: dict[str, float]) -> _Item:
    below = LINE_HEIGHT * (2 if node.label else 1) + 6
    tall = column.size[1]
    stack = len(out) * (column.kernel + 6) - 6 if out else 0.0
    anchor = max(tall, stack) / 2
    height = max(anchor + tall / 2 + below, stack)
    weight = sum(abs(e.strength) for e in out)
    if weight > 0:
        rank = sum(abs(e.strength) * ranks.get(e.target, 0.0) for e in out) / weight
    else:
        rank = sum(ranks.get(e.target, 0.0) for e in out) / len(out) if out else len(ranks)
    return _Item(node, None, out, height, anchor, rank)


def _order(item: _Item) -> tuple[float, bool, float]:
    """By the targets' positions; those that excite before those that inhibit, the strong before the weak."""
    total = sum(e.strength for e in item.out)
    return (round(item.rank, 6), total < 0, -abs(total))


def _place_rows(columns: Sequence[_Column]) -> float:
    """Give every item its height on the page; returns the bottom of the lowest."""
    tall = [sum(i.height for i in c.items) + ROW_GAP * (len(c.items) - 1) for c in columns]
    longest = max(tall, default=0.0)
    first = tall.index(longest)
    y = HEAD
    for item in columns[first].items:
        item.y, y = y, y + item.height + ROW_GAP
    for c in [*range(first - 1, -1, -1), *range(first + 1, len(columns))]:
        other = columns[c + 1] if c < first else columns[c - 1]
        heights = [_preferred_height(item, other, forward=c < first) for item in columns[c].items]
        _settle(columns[c].items, heights, HEAD, HEAD + longest)
    return HEAD + longest


def _preferred_height(item: _Item, other: _Column, *, forward: bool) -> float:
    """The mean height of the neighbors that are placed already."""
    if forward:  # `other` holds the sources
        unit = item.node.unit if item.node else ""
        readers = [{e.target for e in o.out} | ({o.rest.target} if o.rest else set()) for o in other.items]
        near = [o.middle for o, targets in zip(other.items, readers, strict=True) if unit in targets]
    else:
        targets = {e.target for e in item.out} | ({item.rest.target} if item.rest else set())
        near = [o.middle for o in other.items if o.node and o.node.unit in targets]
    near = near or [o.middle for o in other.items]
    return (min(near) + max(near)) / 2 if forward and near else sum(near) / len(near) if near else 0.0


def _settle(items: Sequence[_Item], heights: Sequence[float], top: float, bottom: float) -> None:
    """Move items as little as possible so that they keep their order and do not touch (pool adjacent violators)."""
    offsets, y = [], 0.0
    for item in items:
        offsets.append(y)
        y += item.height + ROW_GAP
    blocks: list[tuple[float, int]] = []
    for item, at, offset in zip(items, heights, offsets, strict=True):
        mean, count = at - item.anchor - offset, 1
        while blocks and blocks[-1][0] > mean:
            before, n = blocks.pop()
            mean, count = (before * n + mean * count) / (n + count), n + count
        blocks.append((mean, count))
    tops = [mean for mean, count in blocks for _ in range(count)]
    highest = bottom - (y - ROW_GAP)
    for item, base, offset in zip(items, tops, offsets, strict=True):
        item.y = min(max(base, top), max(top, highest)) + offset


def _lines(
    columns: list[_Column], lefts: list[float], boxes: dict[str, Box], rest_boxes: dict[int, Box]
) -> list[PlacedEdge]:
    """All lines; those into one node share its left side, in the order of their starts."""
    raw: list[tuple[str, PlacedEdge]] = []
    for column, left in zip(columns, lefts, strict=True):
        width = column.size[0]
        bend = left + width + STUB + column.kernel + NUMBER
        for item in column.items:
            if item.rest is not None:
                box = rest_boxes[id(item.rest)]
                at = (box.right, box.middle)
                line = PlacedEdge(None, item.rest, item.rest.strength, None, at, at, bend, (0, 0), 0)
                raw.append((item.rest.target, line))
            stack = sorted(item.out, key=lambda e: boxes[e.target].middle)
            step = column.kernel + 6
            y = item.middle - (len(stack) * step - 6) / 2
            for edge in stack:
                kernel = Box(left + width + STUB, y, column.kernel, column.kernel)
                leave = (left + width, item.middle)
                start = (kernel.right, kernel.middle)
                raw.append((edge.target, PlacedEdge(edge, None, edge.strength, kernel, leave, start, bend, (0, 0), 0)))
                y += step
    placed = []
    for target, box in boxes.items():
        lines = sorted((line for t, line in raw if t == target), key=lambda line: line.start[1])
        # the strongest unit shown sets the width, so that a large remainder does not make all others hairlines
        most = max((abs(line.strength) for line in lines if line.edge), default=0.0)
        step = min(15.0, 0.86 * box.height / max(1, len(lines) - 1))
        for i, line in enumerate(lines):
            y = box.middle + (i - (len(lines) - 1) / 2) * step
            share = min(1.0, abs(line.strength) / most) if most > 0 else 0.0
            width = THIN + (THICK - THIN) * share
            placed.append(replace(line, end=(box.x - 4, y), width=width))
    return placed


def curve(line: PlacedEdge) -> tuple[Point, Point, Point, Point, Point]:
    """A line as points: start, end of its level beginning, two control points, end before the arrow."""
    x0, y0 = line.start
    x1, y1 = line.end[0] - ARROW, line.end[1]
    bend = (line.bend + x1) / 2
    return (x0, y0), (line.bend, y0), (bend, y0), (bend, y1), (x1, y1)
