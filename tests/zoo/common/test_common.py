"""Registries, checks and results: what every floor stands on."""

from __future__ import annotations

import dataclasses
import doctest
import importlib.metadata
import importlib.util
import inspect
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import circuits
import circuits.plot
import sae
import sae.steering
import zoo
from zoo.common import checks, registries, results, settings
from zoo.common.checks import number, one_of, whole_number
from zoo.common.installation import installation_problem
from zoo.common.lazy import _homes
from zoo.common.registries import Registry
from zoo.common.results import HIDDEN, Result, called, plain
from zoo.common.settings import settings_of
from zoo.errors import CircuitsError, ImageError


@pytest.mark.parametrize("module", [checks, registries, results, settings], ids=lambda m: m.__name__)
def test_the_examples_hold(module: ModuleType) -> None:
    assert doctest.testmod(module, optionflags=doctest.IGNORE_EXCEPTION_DETAIL).failed == 0


def test_a_name_is_taken_once_and_the_same_thing_may_come_again() -> None:
    things: Registry[object] = Registry("architecture")
    first = things.add("a", object())
    assert things.add("a", first) is first
    with pytest.raises(CircuitsError, match="there is an architecture 'a' already"):
        things.add("a", object())
    assert things.add("a", second := object(), replace=True) is second and list(things) == ["a"]


def test_our_modules_and_packages_of_others_are_loaded_once_at_the_first_look(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Entry:
        value = "package:thing"

        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> Any:
            calls.append(self.name)
            if self.name == "broken":
                raise ImportError("it needs something else")
            return lambda: things.add("theirs", 2)

    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Entry("broken"), Entry("good")])
    things: Registry[int] = Registry("thing", group="vision_circuits.things", load=lambda: things.add("ours", 1))
    assert calls == []
    assert dict(things) == {"ours": 1, "theirs": 2} and things["theirs"] == 2
    assert calls == ["broken", "good"]


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "3", None, float("nan"), 11])
def test_what_is_no_whole_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(CircuitsError, match="^top=.* must be a whole number from 1 to 10$"):
        whole_number("top", value, most=10)


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert whole_number("top", np.int64(3)) == 3 and type(whole_number("top", np.int64(3))) is int


@pytest.mark.parametrize("value", [0, 1.5, float("nan"), float("inf"), True, "x", None])
def test_what_is_no_number_in_range_is_refused(value: object) -> None:
    with pytest.raises(CircuitsError, match="^share=.* must be a number above 0 and at most 1$"):
        number("share", value, above=0, most=1)
    assert number("share", 1, above=0, most=1) == 1.0


def test_a_choice_that_is_none_names_all() -> None:
    with pytest.raises(CircuitsError, match=r"^pool='maxx': use one of 'max', 'mean'$"):
        one_of("pool", "maxx", ("max", "mean"))


def test_a_result_is_its_fields_as_json_has_them() -> None:
    @dataclasses.dataclass(frozen=True)
    class Inner(Result):
        x: float

    @dataclasses.dataclass(frozen=True)
    class Outer(Result):
        described = ("twice",)
        inner: Inner
        values: torch.Tensor
        shares: np.ndarray[Any, Any]
        rows: tuple[Inner, ...]
        digest: str = dataclasses.field(default="d", metadata=called("weights"))
        map: object = dataclasses.field(default=None, metadata=HIDDEN)

        @property
        def twice(self) -> int:
            return 2

    inner = Inner(float("nan"))
    document = Outer(inner, torch.tensor([1.0, 2.0]), np.array([0.5, np.inf]), (inner, Inner(3.0))).describe()
    assert document == {
        "inner": {"x": None},
        "values": [1.0, 2.0],
        "shares": [0.5, None],
        "rows": [{"x": None}, {"x": 3.0}],
        "weights": "d",
        "twice": 2,
    }
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    with pytest.raises(TypeError, match="object has no place in JSON"):
        plain(object())


@dataclasses.dataclass(frozen=True)
class _Blur:
    radius: int = 1
    passes: int = 2


def test_settings_are_made_of_options_or_replaced_by_them() -> None:
    assert settings_of(_Blur, None, {"radius": 3}) == _Blur(3) and settings_of(_Blur, _Blur(3), {}) == _Blur(3)
    assert settings_of(_Blur, _Blur(3, 5), {"radius": 4}) == _Blur(4, 5)
    with pytest.raises(ImageError, match="no option 'raduis'. Nearest: radius. There are: radius, passes"):
        settings_of(_Blur, None, {"raduis": 3}, error=ImageError)
    with pytest.raises(CircuitsError, match="settings= takes a _Blur, not a int"):
        settings_of(_Blur, 3, {})  # type: ignore[arg-type]


def test_another_project_s_package_of_the_same_name_is_noticed(tmp_path: Path) -> None:
    assert installation_problem() is None  # this checkout
    assert "no package `circuits`" in str(installation_problem([str(tmp_path)]))
    package = tmp_path / "circuits"
    package.mkdir()
    (package / "__init__.py").write_bytes((Path(circuits.__file__)).read_bytes())
    assert installation_problem([str(tmp_path)]) is None
    (tmp_path / "circuits_of_mine-1.0.dist-info").mkdir()
    assert installation_problem([str(tmp_path)]) is None
    (tmp_path / "circuits-3.2.5.dist-info").mkdir()  # installed before this one
    assert "(circuits-3.2.5) is installed in the same folder" in str(installation_problem([str(tmp_path)]))
    (package / "__init__.py").write_text('"""Lightweight Event driven Framework"""\n')  # installed after it
    problem = installation_problem([str(tmp_path)])
    assert problem is not None and "another project's" in problem and "--force-reinstall" in problem


def test_the_command_line_says_that_circuits_is_another_project_s(tmp_path: Path) -> None:
    (tmp_path / "circuits").mkdir()
    (tmp_path / "circuits" / "__init__.py").write_text("from missing import Component\n")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(circuits.__file__).parents[1])]),
    }
    code = "from apps.cli.main import main; print(main(['layers', 'scenes']), 'then', main(['doctor']), flush=True)"
    run = [sys.executable, "-c", code]
    ran = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0 and ran.stdout.splitlines()[-1] == "1 then 1", ran.stderr
    assert (ran.stdout + ran.stderr).count("another project's") == 2, ran.stderr


@pytest.mark.parametrize(
    "package", [circuits, circuits.plot, sae, sae.steering, zoo], ids=lambda package: package.__name__
)
def test_no_name_could_be_taken_for_the_module_it_is_in(package: ModuleType) -> None:
    for name, (home, original) in _homes(inspect.getsource(package)).items():
        parent = importlib.import_module(home)
        if hasattr(parent, "__path__") and home != package.__name__ and importlib.util.find_spec(f"{home}.{original}"):
            assert isinstance(getattr(package, name), ModuleType), f"import {name} from {home}.{original}"
