"""HTML: elements and pages, in which every value is escaped and nothing is fetched.

Pages are Jinja2 templates (`circuits/plot/templates`, and a folder `templates` of any package that has pages of its
own). What an expression of a template gives is escaped unless it is `Markup`, which only `tag`, `render` and our own
drawings return.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from circuits.plot.drawing import crops
from circuits.plot.drawing.wording import minus, number, short

if TYPE_CHECKING:
    from jinja2 import Environment

_PACKAGE = "circuits.plot"
_LABELS = {
    "weights": "weights, SHA-256",
    "weights_source": "weights from",
    "images_digest": "images, SHA-256",
    "n_images": "number of images",
    "n_places": "positions traced",
}


def printable(text: object) -> str:
    """`text` without characters that a page may not hold: control, bidirectional and unpaired ones."""
    line = str(text)
    return line if line.isprintable() else "".join(c for c in line if c in "\n\t" or c.isprintable())


def cropped(text: str, limit: int) -> str:
    """At most `limit` characters."""
    return text if len(text) <= limit else text[: limit - 1].rstrip() + "…"


def tag(element: str, *children: object, **attributes: object) -> Markup:
    """An element whose children and attributes are escaped, unless they are `Markup`.

    Attributes that are None are left out; `class_` is `class`, and other underscores are hyphens. Floats are written
    with two decimals at most. An element without children ends in `/>`, as SVG allows and an `img` does.

    >>> tag("rect", x=1.0, width=2.345, class_="bar")
    Markup('<rect x="1" width="2.35" class="bar"/>')
    >>> tag("p", "a < b", title=None)
    Markup('<p>a &lt; b</p>')
    """
    listed = Markup("").join(
        Markup(' {}="{}"').format(name.rstrip("_").replace("_", "-"), _attribute(value))
        for name, value in attributes.items()
        if value is not None
    )
    if not children:
        return Markup("<{}{}/>").format(element, listed)
    inner = Markup("").join(child if isinstance(child, Markup) else printable(child) for child in children)
    return Markup("<{0}{1}>{2}</{0}>").format(element, listed, inner)


def _attribute(value: object) -> object:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return value if isinstance(value, Markup) else printable(value)


def join(parts: Sequence[Markup]) -> Markup:
    """Elements one after the other."""
    return Markup("").join(parts)


def table(head: Sequence[str], rows: Sequence[Sequence[object]], *, inline: bool = False) -> Markup:
    """A table whose first column is text and whose others are numbers, set to the right.

    With `inline` it brings its own style, for a notebook, where no stylesheet of ours is.
    """
    return render("sections/table.html", head=head, rows=rows, inline=inline)


def page(template: str, *, package: str = _PACKAGE, beside: bool = False, **values: Any) -> str:
    """A whole page: a template that extends `base.html`, light and dark, and nothing in it is fetched.

    Args:
        template: name in the folder `templates` of `package`.
        package: that has it.
        beside: whether images may be files beside the page, too.
        values: of the template. All need `title`; `command` and `python` make the page again, `provenance` is a
            mapping of where the contents came from, mappings inside of it are written out.
    """
    values["provenance"] = _flat("", values.get("provenance", {}))
    return str(render(template, package=package, beside=beside, **values))


def render(template: str, *, package: str = _PACKAGE, **values: Any) -> Markup:
    """A template of a package, filled in."""
    return Markup(_environment(package).get_template(template).render(**values))


@lru_cache
def _environment(package: str) -> Environment:
    from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

    loaders = [PackageLoader(name) for name in dict.fromkeys((package, _PACKAGE))]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    loader = PackageLoader(_PACKAGE)
    style, script = (loader.get_source(environment, name)[0] for name in ("style.css", "copy.js"))
    environment.globals |= {
        "style": Markup(style),
        "script": Markup(script),
        # labels and ids are not ours: even one that slipped through escaping could run or fetch nothing
        "script_digest": base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        "zip": zip,
    }
    environment.filters |= {"number": number, "minus": minus, "short": short, "cropped": cropped, "uri": crops.uri}
    return environment


def _flat(before: str, value: Any) -> list[tuple[str, Any]]:
    """Mappings inside of mappings as rows of a label and a value."""
    if isinstance(value, Mapping):
        return [row for key, inner in value.items() for row in _flat(f"{before} {key}".strip(), inner)]
    return [(_LABELS.get(before, before.replace("_", " ")), value)]
