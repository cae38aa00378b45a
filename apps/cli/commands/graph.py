"""`circuits graph`: why the network said that, as an attribution graph."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import tyro
from rich.console import Console
from rich.text import Text

from apps.cli.common import OF_SCENES, CommandResult, ImageOptions, Many, Session, loading_code, reporting, sae_option
from apps.cli.errors import UsageError
from apps.cli.output.circuit_text import short
from apps.cli.output.console import clock, signed, table
from apps.cli.registry import command
from apps.images import open_sources

if TYPE_CHECKING:
    from pathlib import Path

    from circuits.network.model import Model
    from circuits.tracing.graphs.attribution_graph import AttributionGraph
    from circuits.tracing.graphs.check import GraphCheck
    from circuits.tracing.graphs.groups import GraphGroups


@command(group="Analysis", order=22, summary="why this prediction: an attribution graph from the class to the image")
@dataclass(frozen=True, kw_only=True)
class MakeGraph(ImageOptions):
    """Explain a prediction by an attribution graph: which units give it, and through which others.

    The network is held at the image as it acts there; then the score is exactly a sum of what units give, each of these
    a sum of what units of the layer before give, and so on. Of several images the graph is the mean. It is checked: the
    strongest units, and others as active, are silenced one by one, and the change of the score is compared with what
    the graph predicts (--no-check skips that). With --out: index.html, graph.json, and circuit-tracer.json, which
    circuit-tracer's pages draw.

    Example:
        circuits graph scenes --images scenes:1 --target car --out why
        circuits graph scenes --images scenes:1 --target car --instead bus --groups --compare scenes:24
        circuits graph googlenet-bvlc --images dog.jpg --layers mixed3b --layers mixed4c --json
        circuits graph scenes --images car.jpg --sae parts --layers mixed3b~parts
        circuits graph scenes --dictionaries saes/block --dictionaries saes/parts --out why
    """

    model: tyro.conf.Positional[str]
    """The model."""
    target: str | None = None
    """A class by its name, or a unit, logits:817 or mixed4a:11. By default the class with the highest score."""
    instead: str | None = None
    """Another one, that is subtracted: why the target and not this."""
    layers: Many = ()
    """Layer of the units; may be repeated. LAYER~NAME takes the latents of an SAE (--sae). By default all SAEs that are
    attached, else the last four layers that every path crosses."""
    dictionaries: Many = ()
    """SAE or transcoder whose latents are units, besides those of --layers: its folder, or the name under which --sae
    attached it; may be repeated. A transcoder, trained from LAYER..LAYER, stands in for the block between."""
    width: int = 32
    """Units of a layer that are nodes of their own; the others are one."""
    keep: float = 0.8
    """The fewest of these units with this share of their influence are left."""
    check: bool = True
    """Do not silence units."""
    groups: bool = False
    """Propose groups of units of a layer that are active in the same places and have the same edges; each is silenced
    as a whole, and so are as many other units that are as active."""
    compare: Many = ()
    """Images on which activations are compared for --groups, a folder or scenes:24. By default those of --images."""
    top: int = 5
    """Units of each layer to print, and sources of each unit to draw."""

    files: ClassVar[tuple[str, ...]] = ("index.html", "graph.json", "circuit-tracer.json")

    def run(self, session: Session) -> CommandResult:
        """The graph, its check, and what prints and writes them."""
        from circuits.attribution.class_scores import chosen_classes
        from circuits.tracing.graphs.check import check_graph
        from circuits.tracing.graphs.graph import graph
        from circuits.tracing.graphs.groups import graph_groups

        self.check_least("width", "top")
        elapsed = clock()
        model = self.load(self.model)
        if not self.images and model.name not in OF_SCENES:
            raise UsageError(f"{model.name} needs an image to explain: --images IMAGE")
        images = self.open_images(model.name) if self.images else open_sources(("scenes:1",), None, 0)
        first = self.target or f"{model.logits}:{chosen_classes(model, 1, images)[0]}"
        if self.target is None and self.instead is not None:
            self._check_instead(model, int(first.rpartition(":")[2]), images.name)
        target = first if self.instead is None else (first, self.instead)
        names, attaching = self._attached(model)
        options = {"layers": list(self.layers) or None, "dictionaries": names, "width": self.width, "keep": self.keep}
        with session.progress("explaining") as report:
            result = graph(model, images, target, **options, **reporting(report))  # type: ignore[arg-type]
        check = check_graph(model, result, images=images, seed=self.seed) if self.check else None
        others = open_sources(self.compare, None, self.seed) if self.compare else None
        groups = graph_groups(model, result, images=images, compare=others, seed=self.seed) if self.groups else None
        seconds = elapsed()

        def show(console: Console) -> None:
            _show(console, result, check, groups, self.top)
            console.print(Text(f"{len(images)} images of {images.name}, {seconds:.1f} s", style="dim"))

        def write(folder: Path) -> None:
            python = self._python(model.name, target, names, attaching)
            result.report(
                folder / "index.html", check=check, groups=groups, width=self.top, command=session.invocation,
                python=python,
            )  # fmt: skip
            result.save(folder / "graph.json")
            text = json.dumps(result.to_circuit_tracer(), indent=1, allow_nan=False, ensure_ascii=False)
            (folder / "circuit-tracer.json").write_text(text, encoding="utf-8")

        document = {
            "graph": result.to_json(),
            "check": None if check is None else check.describe(),
            "groups": None if groups is None else groups.describe(),
        }
        return CommandResult(document, show, write, named="")

    def _check_instead(self, model: Model, highest: int, images: str) -> None:
        """Refuse the class that is explained already, where none was named."""
        from circuits.attribution.class_scores import class_of

        if self.instead in (
            f"{model.logits}:{highest}",
            f"logits:{highest}",
            class_of(model, f"{model.logits}:{highest}"),
        ):
            raise UsageError(
                f"{self.instead} itself has the highest score on {images}: name what it is compared with, "
                f"--target {shlex.quote(str(self.instead))} --instead CLASS"
            )

    def _attached(self, model: Model) -> tuple[list[str] | None, list[str]]:
        """The dictionaries of --dictionaries as addresses, folders attached, and the Python that attaches them all."""
        from sae.data.attach import attach_folder

        named: list[str] = []
        folders = [sae_option(option) for option in self.sae]
        for option in self.dictionaries:
            if "~" in option or any(name == option for _, name in model.bases):
                named.append(option)
            else:
                given, folder = sae_option(option)
                site, name = attach_folder(model, folder, given)
                folders.append((name, folder))
                named.append(f"{site.space}~{name}")
        attaching = [f"attach_folder(model, {folder!r}{f', {name!r}' if name else ''})" for name, folder in folders]
        return named or None, ["from sae.data.attach import attach_folder", *attaching] if attaching else []

    def _python(self, model: str, target: str | tuple[str, str], names: list[str] | None, attaching: list[str]) -> str:
        layers = f", layers={list(self.layers)!r}" if self.layers else ""
        layers += f", dictionaries={names!r}" if names else ""
        images = self.images_code if self.images else "open_images('scenes:1')"
        compare = f", compare=open_images({list(self.compare)!r}, seed={self.seed})" if self.compare else ""
        return "\n".join(
            [
                "import circuits",
                "from zoo import open_images",
                "",
                loading_code(model, self.weights),
                *attaching,
                f"images = {images}",
                f"graph = circuits.graph(model, images, {target!r}{layers}, width={self.width}, keep={self.keep})",
                f"check = circuits.check_graph(model, graph, images=images, seed={self.seed})",
                *(
                    [f"groups = circuits.graph_groups(model, graph, images=images{compare}, seed={self.seed})"]
                    * self.groups
                ),
                f"graph.report('index.html', check=check{', groups=groups' * self.groups}, width={self.top})",
                "",
            ]
        )


def _show(
    console: Console, graph: AttributionGraph, check: GraphCheck | None, groups: GraphGroups | None, top: int
) -> None:
    from circuits.plot.circuit.attribution_graph import check_reading
    from circuits.plot.circuit.graph_effects import group_rows, groups_reading

    target = graph.nodes[-1]
    heading = f"{target.label} ({short(target.unit)})" if target.label else short(target.unit)
    console.print(Text.assemble((heading, "bold"), f" = {target.value:.4g}, of it biases at the end {target.bias:.4g}"))
    for layer in reversed(graph.layers):
        others = [n for n in graph.nodes if n.layer == layer and n.kind in ("rest", "error")]
        listed = [n for n in graph.strongest() if n.layer == layer]
        rows = [[short(n.unit), signed(n.value), f"{n.influence:.3f}"] for n in [*listed[:top], *others]]
        console.print(table([layer, "gives", "influence"], rows, right=" rr"))
    scores = f"completeness {graph.completeness:.2f}, replacement {graph.replacement:.2f}"
    console.print(Text(f"{scores}, not explained {graph.unexplained:.0e}", style="dim"))
    if check is not None:
        console.print(check_reading(check))
    if groups is not None:
        console.print(groups_reading(groups))
        rows = [list(row) for row in group_rows(groups)]
        heads = ["units", "correlation", "random", "edges", "predicted", "measured", "others"]
        console.print(table(heads, rows, right=" rrrrrr"))
