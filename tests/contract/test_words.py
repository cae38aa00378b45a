"""Names are the field's terms: no variable says only that something was found, made or said."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.contract.sources import FLOORS, parse, python_files, where

BARE = frozenset(
    "found one shown made kept asked told said alike apart picture pictures place places sums "
    "dealt crew desk bench trainee regime lottery nobody".split()
)
"""Words that say nothing of what a thing is (`found`, `one`), and those that the field has another word for: an image,
a position, similar, a contribution."""
BRITISH = ("colour", "neighbour", "normalis", "optimis", "behaviour", "centre", "grey", "licence")
VOCABULARY = {"words.py", "grammar.py", "stories.py"}
"""Files of `zoo/tales`, whose words are what the language model was trained on."""


def bound_names(tree: ast.AST) -> Iterator[tuple[ast.AST, str]]:
    """Every name that a file gives: variables, attributes, arguments, functions, classes, other names of imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node, node.id if isinstance(node, ast.Name) else node.attr
        elif isinstance(node, ast.arg):
            yield node, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node, node.name
        elif isinstance(node, ast.alias) and node.asname:
            yield node, node.asname


def test_no_name_is_a_bare_word() -> None:
    bare = [
        f"{where(path, node)}: {name}"
        for path in python_files(*FLOORS, "tools")
        if path.name not in VOCABULARY
        for node, name in bound_names(parse(path))
        if name.strip("_").lower() in BARE
    ]
    assert not bare, f"{len(bare)} names:\n" + "\n".join(bare)


def test_names_are_spelled_the_american_way() -> None:
    british = [
        f"{where(path, node)}: {name}"
        for path in python_files(*FLOORS, "tools")
        if path.name not in VOCABULARY
        for node, name in bound_names(parse(path))
        if any(word in name.lower() for word in BRITISH)
    ]
    assert not british, "\n".join(british)


def test_the_checks_see_what_they_forbid() -> None:
    source = "found = 1\nx.one = 2\ndef f(said, *, told): pass\nclass Desk: pass\nimport a as made\nfor kept in x: pass"
    assert {name.lower() for _, name in bound_names(ast.parse(source)) if name.lower() in BARE} == {
        "found", "one", "said", "told", "desk", "made", "kept",
    }  # fmt: skip
    assert not [name for _, name in bound_names(ast.parse("y = found\nf(one=1)")) if name in BARE]
