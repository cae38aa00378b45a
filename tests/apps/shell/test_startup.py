"""What starting imports: nothing that the user has not asked for. Times are measured by benchmarks/startup.py."""

from __future__ import annotations

import ast
import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import circuits
import circuits.plot
import sae
import sae.superposition
import zoo
import zoo.images
import zoo.networks
from tests.apps.terminal import ROOT

HEAVY = (
    "torch",
    "numpy",
    "matplotlib",
    "sklearn",
    "scipy",
    "networkx",
    "cv2",
    "torchvision",
    "transformers",
    "pandas",
    "sae.training",
    "streamlit",
    "lucent",
    "timm",
    "tyro",
)


def imported(code: str, *options: str) -> set[str]:
    """Which heavy packages a fresh process has imported after `code`."""
    report = f"\nimport sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    ran = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + report], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(ran.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("package", ["zoo", "circuits", "sae", "zoo.errors", "apps.cli.main", "apps.cli.common"])
def test_importing_a_package_imports_nothing_heavy(package: str) -> None:
    assert imported(f"import {package}", "-W", "error") <= ({"tyro"} if package == "apps.cli.common" else set())


def test_opening_images_and_loading_a_network_need_no_library_of_figures_or_statistics() -> None:
    """Nor does the zoo need torchvision until a network of its is asked for."""
    code = """
import sys, zoo, zoo.registry, zoo.images.sources
assert not {'torchvision', 'cv2', 'timm'} & set(sys.modules), sorted(sys.modules)
import circuits; circuits.load('scenes')
"""
    assert imported(code) <= {"torch", "numpy", "torchvision", "cv2"}


def test_explaining_a_unit_in_a_terminal_draws_nothing(tmp_path: Path) -> None:
    circuits.scan(circuits.load("scenes"), "scenes:26", tmp_path, layers=["mixed3b", "mixed4a", "mixed4b"])
    arguments = ["explain", "scenes/mixed4a:11", "--store", str(tmp_path)]
    code = f"from apps.cli.main import main; assert main({arguments}) == 0"
    assert not imported(code) & {"matplotlib", "sklearn", "scipy", "networkx", "transformers", "pandas", "sae.training"}


LAZY = [zoo, zoo.images, zoo.networks, circuits, circuits.plot, sae, sae.steering, sae.superposition]
"""Packages that import their names when they are first used."""


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_every_public_name_is_there_when_it_is_used(package: ModuleType) -> None:
    assert set(package.__all__) <= set(dir(package))
    for name in package.__all__:
        assert getattr(package, name) is getattr(package, name)
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        package.nonsense  # noqa: B018


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_no_lazy_name_is_that_of_another_thing_in_a_module(package: ModuleType) -> None:
    """Importing `package.name` as a module would put the module in the place of a function of that name."""
    at_once = {
        a.name for n in ast.parse(inspect.getsource(package)).body if isinstance(n, ast.ImportFrom) for a in n.names
    }
    modules = ({module.name for module in pkgutil.iter_modules(package.__path__)} & set(package.__all__)) - at_once
    assert all(isinstance(getattr(package, name), ModuleType) for name in modules)
    assert not modules or f"from {package.__name__} import" in inspect.getsource(package)


def test_all_lazy_packages_are_tested() -> None:
    lazy = {path.parent for path in ROOT.glob("[a-z]*/**/__init__.py") if "lazy_names(" in path.read_text("utf-8")}
    assert lazy == {Path(package.__path__[0]) for package in LAZY}
