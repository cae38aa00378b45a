"""Lucent's own tests pass with imports changed only, on its network and on ours.

Its package carries no tests: they are read from a checkout of greentfrapp/lucent, whose folder is $LUCENT_SOURCE.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

FILES = ("param/test_cppn", "param/test_lowres", "param/test_spatial", "test_integration", "test_objectives",
         "test_render", "test_transform")  # fmt: skip
"""Lucent's tests of `lucent.optvis` that need no GAN: 31 of them."""

NETWORKS = {
    # Weights cannot be fetched here, and what the tests claim does not depend on them. Both networks start as PyTorch
    # makes them: from He's initialization, the five steps of Lucent's test of `alignment` overshoot in Lucent itself.
    "lucent": "inceptionv1 = functools.partial(lucent.modelzoo.inceptionv1, pretrained=False)",
    "ours": """
def inceptionv1():
    module = circuits.load("inceptionv1", weights="random").module
    for part in module.modules():
        getattr(part, "reset_parameters", int)()
    return module
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
def test_lucents_own_tests_pass_with_imports_changed(network: str, tmp_path: Path) -> None:
    pytest.importorskip("lucent", reason="needs the extra `lucent`")
    source = Path(os.environ.get("LUCENT_SOURCE", "nowhere")) / "tests" / "optvis"
    if not source.is_dir():
        pytest.skip("needs a checkout of greentfrapp/lucent: give its folder as $LUCENT_SOURCE")
    imports = "import functools\n\nimport circuits\nimport lucent.modelzoo\n\n"
    (tmp_path / "network_of_the_test.py").write_text(imports + NETWORKS[network])
    for name in FILES:
        text = (source / f"{name}.py").read_text()
        text = text.replace("lucent.optvis", "circuits.visualization.lucent")
        text = text.replace("from lucent.modelzoo import", "from network_of_the_test import")
        (tmp_path / f"{Path(name).name}.py").write_text(text)
    report = tmp_path / "report.xml"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", str(tmp_path)],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    cases = ElementTree.parse(report).getroot().findall(".//testcase")
    failed = [case.get("name") for case in cases if case.find("failure") is not None or case.find("error") is not None]
    assert len(cases) == 31 and not failed, f"{failed}\n{run.stdout[-3000:]}"
