"""The rules of the house that can be seen in the source."""

from __future__ import annotations

import ast
import importlib
import re
import types
from pathlib import Path

import pytest

from tests.contract.sources import (
    ELSEWHERE,
    FLOORS,
    LIBRARY,
    ROOT,
    calls,
    imports,
    parse,
    python_files,
    text_files,
    where,
)

LONGEST = 600
HOOK = re.compile(r"register_\w*hook$")
HOOKS_HOME = ROOT / "circuits" / "network" / "hooks.py"
PICKLE = re.compile(r"(pickle|dill|joblib)\.(load|loads|dump|dumps)$")
# An absolute path of one machine or one user; a relative path or the path part of a URL is none.
MACHINE_PATH = re.compile(r"(?<![\w.})\]~*$-])/(?:work|root|farm|tmp|(?:home|Users)/\w+)/")
UNFINISHED = re.compile(r"\b(?:TODO|FIXME|XXX)\b")


def prints(tree: ast.AST) -> list[ast.Call]:
    return [node for node, name in calls(tree) if name == "print"]


def hooks(tree: ast.AST) -> list[ast.AST]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and HOOK.search(node.attr)]


def unsafe_loads(tree: ast.AST) -> list[ast.AST]:
    """`torch.load` that may run code from the file, also under another name, and pickle."""
    found: list[ast.AST] = [node for node, name in imports(tree) if name == "torch.load"]
    for node, name in calls(tree):
        safe = any(
            word.arg == "weights_only" and isinstance(word.value, ast.Constant) and word.value.value is True
            for word in node.keywords
        )
        if PICKLE.search(name) or (name == "torch.load" and not safe):
            found.append(node)
    return found


def public_names(module: types.ModuleType) -> list[str]:
    return list(getattr(module, "__all__", []))


def test_the_library_logs_and_never_prints() -> None:
    found = [where(path, node) for path in python_files(*LIBRARY) for node in prints(parse(path))]
    assert not found, "\n".join(found)


def test_hooks_live_in_one_file() -> None:
    found = [where(path, node) for path in python_files(*FLOORS) if path != HOOKS_HOME for node in hooks(parse(path))]
    assert not found, "\n".join(found)


def test_no_file_is_loaded_in_a_way_that_could_run_its_code() -> None:
    everywhere = python_files(*FLOORS, "tests", "benchmarks", "tools")
    found = [where(path, node) for path in everywhere for node in unsafe_loads(parse(path))]
    assert not found, "\n".join(found)


def test_no_source_file_is_longer_than_600_lines() -> None:
    lengths = {path: len(path.read_text("utf-8").splitlines()) for path in python_files(*FLOORS, *ELSEWHERE)}
    found = [f"{where(path, length)}" for path, length in lengths.items() if length > LONGEST]
    assert not found, "\n".join(found)


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{where(path, number)}: {line.strip()[:100]}"
        for path in text_files()
        for number, line in enumerate(path.read_text("utf-8", errors="replace").splitlines(), start=1)
        if MACHINE_PATH.search(line)
    ]
    assert not found, "\n".join(found)


def test_nothing_is_left_for_later() -> None:
    found = [
        where(path, number)
        for path in python_files(*FLOORS)
        for number, line in enumerate(path.read_text("utf-8").splitlines(), start=1)
        if UNFINISHED.search(line)
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("package", LIBRARY)
def test_everything_in_all_exists(package: str) -> None:
    module = importlib.import_module(package)
    assert [name for name in public_names(module) if not hasattr(module, name)] == []


def test_the_checks_see_what_they_forbid() -> None:
    assert prints(ast.parse("if x:\n    print(1)"))
    assert not prints(ast.parse("log.print(1)"))
    assert hooks(ast.parse("module.register_forward_pre_hook(f)"))
    assert hooks(ast.parse("f = getattr(net, name).register_forward_hook"))
    assert unsafe_loads(ast.parse("torch.load(path)"))
    assert unsafe_loads(ast.parse("torch.load(path, weights_only=False)"))
    assert unsafe_loads(ast.parse("from torch import load"))
    assert unsafe_loads(ast.parse("pickle.loads(b)"))
    assert not unsafe_loads(ast.parse("torch.load(path, map_location='cpu', weights_only=True)"))
    separator = "/"
    assert MACHINE_PATH.search(separator.join(["see ", "tmp", "x"]))
    assert not MACHINE_PATH.search(separator.join(["https:", "", "example.org", "tmp", "x"]))
    assert Path(HOOKS_HOME).is_file()
