"""The explorer under load: how long pages take on the server, and twenty sessions at once against one server.

1. Server time of pages, without a browser: 50 unit pages, first and again, and the wall of the layer with most units.
   Then what is computed when it is asked for: a circuit of three layers, the attribution of a class on an image,
   polysemanticity and tuning of a unit; cold (nothing is kept), warm, and after a restart (what the store keeps).
2. One server; N sessions that go from view to view over its websocket, as browsers do, for so many seconds. Every
   answer is compared with what the same view gave when the server had one session only. Afterwards the model must have
   the hooks and the weights that it had before. Some of the views steer units, and others read the same layers: what
   one session edits must never be in what another one sees.

`python benchmarks/explorer.py` does both, and prints the rows of docs/benchmarks.md. With --model googlenet-bvlc and a
store that holds a scan of it, pages are those of a real network.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

# the folder of this script has an sae.py, which is not the package
sys.path[:] = [folder for folder in sys.path if Path(folder or ".").resolve() != Path(__file__).resolve().parent]
PORT = 8677
ANSWERS = ("explorer_weights", "explorer_gallery", "explorer_graph")


def main() -> int:
    """Measure both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", type=Path, help="a store with a scan; by default one of scenes is made")
    parser.add_argument("--model", default="scenes")
    parser.add_argument("--units", type=int, default=50)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--think", type=float, default=0, help="seconds between an answer and the next click, +-50 %%")
    parser.add_argument("--computed", help="only the computed views, of this unit: mixed4c:100")
    parser.add_argument("--views", type=int, help="only memory: so many views of other units, one after the other")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = options.store or _new_store(Path(folder))
        os.environ["CIRCUITS_EXPLORER"] = json.dumps({"store": str(store.absolute()), "model": options.model})
        if options.computed:
            rows = computed(store, f"{options.model}/{options.computed}")
            print("\n".join(["", "| | cold | warm | after a restart |", "|---|---|---|---|", *rows, ""]), flush=True)
            return 0
        if options.views:
            return serve(lambda: growth(options.model, store, options.views))
        rows = pages(options.model, store, options.units)
        print("\n".join(["", "| | first visit | again |", "|---|---|---|", *rows, ""]), flush=True)
        if not options.sessions:
            return 0
        return serve(lambda: _visit(options.model, store, options), _sentence)


def _new_store(folder: Path) -> Path:
    import circuits

    circuits.scan(circuits.load("scenes"), "scenes:300", folder / "store")
    return folder / "store"


def _app() -> str:
    import apps.explorer

    return str(Path(apps.explorer.__file__).parent / "app.py")


# -- server time ------------------------------------------------------------------------------------------------------


def pages(model: str, store: Path, count: int) -> list[str]:
    """Server time of pages, run in this process; rows of a table."""
    from streamlit.testing.v1 import AppTest

    from apps.explorer.pages import PAGES
    from apps.explorer.resources import thumbnails
    from circuits.dataset.scan_results import read_scan

    scan = read_scan(store, model)
    missing = [layer for layer in scan.layers if thumbnails.stored(scan, layer) is None]
    if missing:
        thumbnails.make(scan, scan.images(check=False), missing)
    wall = max(scan.layers, key=lambda name: (scan.layers[name] == 512, scan.layers[name]))
    at = AppTest.from_file(_app(), default_timeout=120)

    def timed(page: str, **params: object) -> tuple[float, float]:
        at.switch_page(str(PAGES[page].file))
        at.query_params.clear()
        for name, value in params.items():
            at.query_params[name] = str(value)
        wall_clock, cpu = time.perf_counter(), time.process_time()
        at.run()
        spent = 1000 * (time.perf_counter() - wall_clock), 1000 * (time.process_time() - cpu)
        assert not at.exception and not at.error, (page, params, at.error)
        name = str(params["unit"]).rpartition("/")[2]
        assert at.subheader[0].value.replace("\\", "").startswith(name), (at.subheader[0].value, name)
        return spent

    drawn = random.Random(0)
    layers = [name for name in scan.layers if scan.layer(name).active_images.any()]
    units = []
    while len(units) < count:
        layer = drawn.choice(layers)
        units.append(f"{model}/{layer}:{drawn.randrange(scan.layers[layer])}")
    timed("unit", unit=units[0])
    names = f"{len(units)} unit pages", f"wall of {min(512, scan.layers[wall])} units"
    medians = [
        [_tell(f"{names[0]}, {title}", [timed("unit", unit=unit) for _ in range(n) for unit in units])
         for title, n in (("first", 1), ("again", 2))],
        [_tell(f"{names[1]}, {title}", [timed("layer", unit=f"{model}/{wall}", size=512) for _ in range(n)])
         for title, n in (("first", 1), ("again", 5))],
    ]  # fmt: skip
    return [f"| {name}, {model} | {a:.0f} ms | {b:.0f} ms |" for name, (a, b) in zip(names, medians, strict=True)]


def computed(store: Path, unit: str) -> list[str]:
    """Clock and CPU-seconds until what is computed is shown; rows of a table."""
    import shutil

    from streamlit.testing.v1 import AppTest

    from apps.explorer.pages import PAGES
    from apps.explorer.resources.stored_results import FOLDER
    from apps.explorer.session import state
    from circuits.dataset.scan_store import folder_of

    model = unit.partition("/")[0]
    shutil.rmtree(folder_of(store, model) / FOLDER, ignore_errors=True)
    views: dict[str, tuple[str, dict[str, str]]] = {
        "circuit, 3 layers": ("circuit", {"unit": unit, "depth": "3"}),
        "class attribution on an image": ("image", {"unit": unit, "section": "class", "image": "3"}),
        "polysemanticity": ("unit", {"unit": unit, "section": "polysemanticity"}),
        "tuning": ("unit", {"unit": unit, "section": "tuning"}),
        "why: graph of a class on an image": ("why", {"unit": unit, "image": "3", "explain": "1", "class": "0"}),
    }

    def shown(page: str, params: dict[str, str]) -> str:
        at = AppTest.from_file(_app(), default_timeout=600)
        at.switch_page(str(PAGES[page].file))
        for name, value in params.items():
            at.query_params[name] = value
        clock, cpu = time.perf_counter(), time.process_time()
        at.run()
        while at.get("progress"):
            time.sleep(0.2)
            at.run()
        assert not at.exception and not at.error, (page, params, at.error)
        return f"{time.perf_counter() - clock:.2f} s (CPU {time.process_time() - cpu:.2f})"

    shown("unit", {"unit": unit})  # opens model and scan
    rows = []
    for name, view in views.items():
        cold, warm = shown(*view), shown(*view)
        state.executor()._tasks.clear()  # as a restart does
        rows.append(f"| {name}, {model} | {cold} | {warm} | {shown(*view)} |")
        print(rows[-1], flush=True)
    return rows


def _tell(what: str, spent: list[tuple[float, float]]) -> float:
    """Print them; the median."""
    clock, cpu = [s[0] for s in spent], [s[1] for s in spent]
    print(
        f"{what:<44} median {statistics.median(clock):6.0f} ms (CPU {statistics.median(cpu):5.0f}), "
        f"slowest {max(clock):6.0f} ms"
    )
    return statistics.median(clock)


# -- many sessions ----------------------------------------------------------------------------------------------------


def serve(visit: Callable[[], dict[str, Any]], sentence: Callable[[dict[str, Any]], str] | None = None) -> int:
    """Serve in the main thread, and visit in another; prints what the visits gave, as JSON and as a sentence."""
    from streamlit.web import bootstrap

    from apps import memory
    from apps.explorer.server.security import OPTIONS

    memory.reuse()  # as the server does, before there are threads
    flags = {name.replace(".", "_"): value for name, value in {**OPTIONS, "server.port": PORT}.items()}
    bootstrap.load_config_options(flags)
    result: dict[str, Any] = {}
    visitors = threading.Thread(target=lambda: result.update(visit()), daemon=True)
    visitors.start()

    def over() -> None:
        visitors.join()
        print(json.dumps(result, indent=1), flush=True)
        if sentence is not None and "memory MB" in result:
            print(sentence(result), flush=True)
        os._exit(0 if result.get("ok") else 1)  # the server has no other end

    threading.Thread(target=over, daemon=True).start()
    bootstrap.run(_app(), False, [], flags)
    return 1


def _sentence(result: dict[str, Any]) -> str:
    """The sentence of docs/benchmarks.md."""
    memory, same = result["memory MB"], result["hooks"]["before"] == result["hooks"]["after"]
    unchanged = "as before" if same and result["weights unchanged"] else "NOT as before"
    return (
        f"{result['sessions']} sessions at once for {result['seconds']:g} s against one server, {result['think']:g} s "
        f"between answer and click: {result['answers']:,} answers (median {result['median answer ms'] / 1000:.2f} s, "
        f"95th percentile {result['95th percentile ms'] / 1000:.1f} s, of cached views and of views computed anew; "
        f"{result['CPU ms an answer, visitors included']} CPU-ms an answer, visitors included), "
        f"{result['errors']} errors, {result['differences']} different from those of a single session; "
        f"hooks and weights {unchanged}; {memory['alone']} to {memory['most']} MB."
    )


def _visit(model: str, store: Path, options: argparse.Namespace) -> dict[str, Any]:
    from apps.explorer.session.state import open_model
    from zoo.weights.loading import digest

    try:
        views = _views(model, store)
        expected = asyncio.run(_alone(views))
        shared = open_model(model)
        before = _hooks(shared), digest(shared.module.state_dict())
        counts, memory = asyncio.run(_together(views, expected, options))
        after = _hooks(shared), digest(shared.module.state_dict())
    except BaseException as error:  # reported, and the process ends
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
    half = memory[len(memory) // 2 :]
    return {
        "ok": before == after and not counts["errors"] and not counts["differences"],
        "sessions": options.sessions,
        "seconds": options.seconds,
        "think": options.think,
        "views": len(views),
        "answers": counts["answers"],
        "errors": counts["errors"],
        "differences": counts["differences"],
        "hooks": {"before": before[0], "after": after[0]},
        "weights unchanged": before[1] == after[1],
        "median answer ms": round(counts["median"]),
        "95th percentile ms": round(counts["slow"]),
        "CPU ms an answer, visitors included": round(counts["cpu"]),
        "memory MB": {"alone": memory[0], "most": max(memory), "growth over the second half": half[-1] - half[0]},
    }


def _views(model: str, store: Path) -> list[tuple[str, str]]:
    from circuits.dataset.scan_results import read_scan

    scan, generator = read_scan(store, model), random.Random(1)
    last = [name for name in scan.layers if name.startswith("mixed") and "_" not in name][:6] or list(scan.layers)[-3:]
    views = [("layer", f"unit={model}/{name}") for name in last]
    for name in last:
        units = generator.sample(range(scan.layers[name]), min(6, scan.layers[name]))
        views += [("unit", f"unit={model}/{name}:{index}") for index in units]
        views += [("unit", f"unit={model}/{name}:{units[0]}&section=similar&examples=random")]
    firing = [i for i in range(scan.layers[last[-1]]) if scan.layer(last[-1]).active_images[i] > 5][:3]
    views += [("circuit", f"unit={model}/{last[-1]}:{index}") for index in firing]
    views += [("unit", f"unit={model}/{last[-1]}:{index}&section=contributions&crop=heatmap") for index in firing]
    views += [("steering", f"unit={model}/{last[-2]}:{index}&edits={index}:scale:2") for index in range(3)]
    views += [("steering", f"unit={model}/{last[-1]}:{index}") for index in firing]
    return [(page, quote(query, safe="=&:/")) for page, query in views]


def growth(model: str, store: Path, count: int) -> dict[str, Any]:
    """Resident memory over many views, each of another unit, in a session for every ten."""

    async def visits() -> list[int]:
        memory: list[int] = []
        for begin in range(0, count, 10):
            async with Visitor() as visitor:
                for view in views[begin : begin + 10]:
                    answer = await _settled(visitor, *view)
                    if answer["errors"] and not any("is active on none" in text for text in answer["errors"]):
                        raise RuntimeError(f"{view}: {answer['errors']}")
                    memory.append(_memory())
                    if len(memory) % 10 == 0:
                        print(f"{len(memory)} views: {memory[-1]} MB", file=sys.stderr, flush=True)
        return memory

    views = _many_views(model, store, count)
    try:
        memory = asyncio.run(visits())
    except BaseException as error:  # reported, and the process ends
        return {"ok": False, "error": f"{type(error).__name__}: {error}"}
    most = max(memory)
    return {"ok": True, "views": count, "memory MB": {"first view": memory[0], "most": most, "last": memory[-1]}}


def _many_views(model: str, store: Path, count: int) -> list[tuple[str, str]]:
    """Views of units sampled at random, of every page that computes something about one."""
    from circuits.dataset.scan_results import read_scan

    scan, generator = read_scan(store, model), random.Random(2)
    layers = [name for name in scan.layers if name.startswith("mixed") and "_" not in name] or list(scan.layers)[-6:]
    kinds = [
        ("unit", ""), ("unit", "&examples=random"), ("unit", "&examples=bands&crop=heatmap"),
        ("unit", "&section=contributions"), ("unit", "&section=similar"), ("unit", "&section=polysemanticity"),
        ("layer", ""), ("circuit", "&by=weights"), ("image", ""), ("steering", ""),
    ]  # fmt: skip
    views = []
    for number in range(count):
        layer = generator.choice(layers)
        firing = scan.layer(layer).active_images.nonzero()[0].tolist()
        page, more = kinds[number % len(kinds)]
        unit, image = generator.choice(firing), generator.randrange(scan.count)
        more += f"&image={image}" if page == "image" else ""
        views.append((page, quote(f"unit={model}/{layer}:{unit}{more}", safe="=&:/")))
    return views


def _hooks(model: Any) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(part, kind)) for part in model.module.modules() for kind in kinds)


class Visitor:
    """One session, over the websocket that browsers use."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}

    async def __aenter__(self) -> Visitor:
        import websockets

        address = f"ws://127.0.0.1:{PORT}/_stcore/stream"
        for _ in range(300):
            try:
                self.socket = await websockets.connect(
                    address, subprotocols=["streamlit"], max_size=None, origin=f"http://127.0.0.1:{PORT}"
                )
                return self
            except OSError:
                await asyncio.sleep(0.2)
        raise RuntimeError("the server does not answer")

    async def __aexit__(self, *_: object) -> None:
        await self.socket.close()

    async def open(self, page: str, query: str) -> dict[str, Any]:
        """What a view shows: the data of its elements, whether it is still at work, and its errors."""
        from streamlit.proto.BackMsg_pb2 import BackMsg
        from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

        request = BackMsg()
        request.rerun_script.query_string = query
        request.rerun_script.page_name = page
        await self.socket.send(request.SerializeToString())
        answer: dict[str, Any] = {"data": {}, "working": False, "errors": []}
        while True:
            message = ForwardMsg()
            message.ParseFromString(await asyncio.wait_for(self.socket.recv(), 120))
            kind = message.WhichOneof("type")
            if kind == "ref_hash":
                message = self.known[message.ref_hash]
                kind = message.WhichOneof("type")
            elif message.metadata.cacheable:
                self.known[message.hash] = message
            if kind == "script_finished":
                return answer
            if kind == "delta":
                _read(message, answer)


def _read(message: Any, answer: dict[str, Any]) -> None:
    element = message.delta.new_element
    kind = element.WhichOneof("type")
    if kind == "bidi_component" and element.bidi_component.component_name in ANSWERS:
        position = ".".join(map(str, message.metadata.delta_path))
        answer["data"][f"{position} {element.bidi_component.component_name}"] = element.bidi_component.json
    elif kind == "plotly_chart":
        answer["data"][".".join(map(str, message.metadata.delta_path)) + " chart"] = element.plotly_chart.spec
    elif kind == "progress" or (kind == "markdown" and "Making thumbnails" in element.markdown.body):
        answer["working"] = True
    elif kind == "exception" or (kind == "alert" and element.alert.format == 1):
        answer["errors"].append(str(element.exception.message or element.alert.body))


async def _settled(visitor: Visitor, page: str, query: str) -> dict[str, Any]:
    for _ in range(600):
        answer = await visitor.open(page, query)
        if not answer["working"]:
            return answer
        await asyncio.sleep(0.3)
    raise RuntimeError(f"{page}?{query} does not come to an end")


async def _alone(views: list[tuple[str, str]]) -> dict[tuple[str, str], dict[str, Any]]:
    expected = {}
    for page, query in views:  # a session each, so that nothing of another view is in it
        async with Visitor() as visitor:
            expected[page, query] = await _settled(visitor, page, query)
            if expected[page, query]["errors"] or not expected[page, query]["data"]:
                raise RuntimeError(f"{page}?{query}: {expected[page, query]['errors'] or 'nothing is shown'}")
    return expected


async def _together(
    views: list[tuple[str, str]], expected: dict[tuple[str, str], dict[str, Any]], options: argparse.Namespace
) -> tuple[dict[str, Any], list[int]]:
    counts: Counter[str] = Counter()
    spent: list[float] = []
    memory = [_memory()]
    cpu = time.process_time()
    end = time.monotonic() + options.seconds

    async def session(number: int) -> None:
        drawn = random.Random(number)
        async with Visitor() as visitor:
            await asyncio.sleep(options.think * drawn.random())
            while time.monotonic() < end:
                view = drawn.choice(views)
                begun = time.perf_counter()
                answer = await _settled(visitor, *view)
                spent.append(1000 * (time.perf_counter() - begun))
                counts["answers"] += 1
                counts["errors"] += bool(answer["errors"])
                if answer["data"] != expected[view]["data"]:
                    counts["differences"] += 1
                    if counts["differences"] < 4:
                        print(f"differs: {view} {_difference(answer['data'], expected[view]['data'])}", file=sys.stderr)
                await asyncio.sleep(options.think * (0.5 + drawn.random()))

    async def watch() -> None:
        while time.monotonic() < end:
            await asyncio.sleep(max(1.0, options.seconds / 30))
            memory.append(_memory())

    await asyncio.gather(watch(), *(session(number) for number in range(options.sessions)))
    counted = {k: counts[k] for k in ("answers", "errors", "differences")}
    each = (time.process_time() - cpu) / max(1, counts["answers"])
    times = {"median": statistics.median(spent), "slow": statistics.quantiles(spent, n=20)[-1]}
    return {**counted, **times, "cpu": 1000 * each}, memory


def _difference(answer: dict[str, str], expected: dict[str, str]) -> str:
    if answer.keys() != expected.keys():
        return f"elements {sorted(answer.keys() ^ expected.keys())}"
    return ", ".join(name for name in answer if answer[name] != expected[name])


def _memory() -> int:
    """Resident memory of this process, in megabytes (where the system tells)."""
    try:
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) // 1000 for line in file if line.startswith("VmRSS"))
    except (OSError, StopIteration):
        return 0


if __name__ == "__main__":
    sys.exit(main())
