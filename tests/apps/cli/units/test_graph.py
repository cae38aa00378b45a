from pathlib import Path

import circuits
from tests.apps.terminal import Cli


def test_a_prediction_is_explained_checked_and_written(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "why"
    options = ("--layers", "mixed4a", "--layers", "mixed4b", "--width", "6", "--keep", "1")
    ran = cli(
        "graph",
        "scenes",
        "--images",
        "scenes:1",
        "--target",
        "car",
        "--instead",
        "bus",
        "--groups",
        *options,
        "--out",
        str(out),
        "--json",
    )
    document = ran.json
    assert (
        document["graph"]["target"].startswith("scenes/softmax_pre:0-softmax_pre:")
        and document["check"]["correlation"] > 0.5
    )
    graph = circuits.AttributionGraph.load(out / "graph.json")
    assert graph.to_json() == document["graph"]
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "Attribution graph" in page and "silenced" in page and 'src="http' not in page
    assert (out / "circuit-tracer.json").is_file()
    assert graph.n_images == 1 and [n.layer for n in graph.nodes][1:-1] == ["mixed4a"] * 7 + ["mixed4b"] * 7
