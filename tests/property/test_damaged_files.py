"""Files that somebody else may have written: each damaged one is read, or refused in one clear line."""

from __future__ import annotations

import os
import random
import shutil
import warnings
from pathlib import Path

import pytest

from circuits.errors import CircuitsError
from tests.property.formats import KINDS
from tests.property.mutations import damaged

SEED, COUNT = (int(os.environ.get(name, default)) for name, default in (("FUZZ_SEED", "1"), ("FUZZ_COUNT", "300")))
"""Of the longer test: `FUZZ_SEED=1000 FUZZ_COUNT=2000 pytest -m slow tests/property/test_damaged_files.py`."""
UNREFUSED = {"figure", "figures", "inventory", "export", "site"}
"""Much of what is damaged of these is made again, or is not looked at."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a sound folder of each kind is made when it is first asked for."""
    return tmp_path_factory.mktemp("sound")


def _damage(name: str, sound: Path, folder: Path, seed: int, count: int) -> None:
    kind = KINDS[name]
    if not (sound / name).is_dir():
        (sound / name).mkdir(parents=True)
        kind.make(sound / name)
    kind.use(Path(shutil.copytree(sound / name, folder / "sound")))
    refused, work = 0, folder / "work"
    for number in range(count):
        rng = random.Random(f"{name}-{seed}-{number}")
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(sound / name, work)
        files = {path for pattern in kind.damage for path in work.glob(pattern) if path.is_file()}
        path = rng.choice(sorted(p for p in files if not p.name.endswith("lock")))
        path.write_bytes(damaged(path.name, path.read_bytes(), rng))
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kind.use(work)
        except CircuitsError as error:
            refused += 1
            assert "\n" not in str(error).strip() and len(str(error)) < 1000
        except Exception as error:
            raise AssertionError(f"{name}, seed {seed}, number {number}: {path.name}") from error
    assert refused or name in UNREFUSED


@pytest.mark.parametrize("name", [name for name in KINDS if name != "language"])  # six seconds to load a model
def test_damaged_files_are_read_or_refused_in_one_line(name: str, sound: Path, tmp_path: Path) -> None:
    _damage(name, sound, tmp_path, 0, 10)


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_many_damaged_files_are_read_or_refused_in_one_line(name: str, sound: Path, tmp_path: Path) -> None:
    _damage(name, sound, tmp_path, SEED, COUNT)
