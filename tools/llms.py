"""Write llms.txt, the reference on one page, from the docstrings of the public names: `python -m tools.llms`."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent.parent / "llms.txt"
PACKAGES = ("circuits", "circuits.visualization", "circuits.stimuli", "circuits.plot", "sae", "sae.language",
            "sae.steering", "sae.superposition", "zoo")  # fmt: skip
HEAD = """\
# vision-circuits

> A Python framework that takes trained vision networks apart: units, weights, circuits, feature visualization, sparse
> autoencoders (for language models, too). This page is every public name with its signature and docstring.

- Functions take the model first, then a unit or layer by its address, then images; options are keywords.
- An address is `model/layer:unit@y,x`, for example `scenes/mixed4a:11@3,5`; `layer~name:7` is a latent of an attached
  dictionary, `logits:car` a class score by its name. The model's name may be left out where the model is given.
- Images are floats in [0, 1], `(N, channels, H, W)`; a folder, a data set, a list, or `scenes:60@7` (60 drawn scenes,
  seed 7).
- Results are frozen dataclasses: `print`, `.plot()`, `.table()`, `.report("page.html")`, `.save(path)`, `.describe()`.
- Bad input raises `CircuitsError`, whose message says what was asked, what exists and what to do.

```python
import circuits

model = circuits.load("scenes")  # yours: circuits.wrap(net, circuits.InputSpec(size=224), name="mine", classes=[...])
circuit = circuits.trace(model, "logits:car", images="scenes:60").scored(random=20)
circuit.report("car.html")
```

Guides: docs/tutorial.md, docs/which-tool.md, docs/results.md, docs/your-own-model.md, docs/tracing.md, docs/sae.md.
"""


def reference() -> str:
    """The page."""
    seen: set[int] = set()
    parts = [HEAD]
    for name in PACKAGES:
        package = importlib.import_module(name)
        parts.append(f"## {name}\n\n{_paragraph(package)}\n")
        for public in package.__all__:
            thing = getattr(package, public)
            if id(thing) not in seen and not inspect.ismodule(thing):
                seen.add(id(thing))
                parts += _entry(f"{name}.{public}", thing)
    return "\n".join(parts)


def _entry(name: str, thing: Any) -> Iterator[str]:
    if inspect.isclass(thing):
        fields = re.search(r"(?ms)^Attributes:.*?(?=^\S|\Z)", _docstring(thing)[1:])
        about = "\n\n".join(filter(None, (_paragraph(thing), fields and fields[0].strip())))
        yield f"### class {name}{_signature(thing) if not fields else ''}\n\n{about}\n"
        methods = [f"- `.{key}{_signature(value)}`: {_paragraph(value)}" for key, value in _methods(thing)]
        if methods:
            yield "\n".join(methods) + "\n"
    elif callable(thing):
        yield f"### {name}{_signature(thing)}\n\n{_docstring(thing)}\n"
    else:
        yield f"### {name}\n"


def _methods(kind: type) -> Iterator[tuple[str, Any]]:
    """Public methods and properties that a class of ours has of its own."""
    for key, value in vars(kind).items():
        function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
        if not key.startswith("_") and inspect.isfunction(function) and function.__doc__:
            yield key, value if isinstance(value, property) else function


def _signature(thing: Any) -> str:
    """Arguments as they are written; nothing for a property, or where Python knows none."""
    if isinstance(thing, property):
        return ""
    try:
        text = str(inspect.signature(thing))
    except (TypeError, ValueError):
        return ""
    text = re.sub(r" at 0x[0-9a-f]+|<factory>", "", text).replace("'", "")
    return text if len(text) < 1000 else "(...)"


def _docstring(thing: Any) -> str:
    text = inspect.getdoc(thing) or ""
    return "" if text.startswith(f"{getattr(thing, '__name__', '')}(") else text  # dataclasses make one of their own


def _paragraph(thing: Any) -> str:
    return " ".join((inspect.getdoc(thing) or "").split("\n\n")[0].split())


if __name__ == "__main__":
    FILE.write_text(reference(), encoding="utf-8")
