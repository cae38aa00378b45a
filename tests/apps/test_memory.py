import subprocess
import sys

import pytest

PROGRAM = """
import sys
from apps import memory
if not memory.reuse():
    print("another C library")
    sys.exit()
import numpy as np
def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024
before = resident()
blocks = [np.ones(2**21) for _ in range(8)]  # 16 MiB each, which glibc would map one by one
del blocks
freed = resident()
memory.give_back()
print(before, freed, resident())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_freed_memory_stays_to_be_used_again_until_it_is_given_back() -> None:
    out = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True).stdout
    if "another" in out:
        pytest.skip("another C library")
    before, freed, after = map(float, out.split())
    assert freed > before + 100 and after < before + 20


SETTLING = """
import gc
import decimal, email.message, xml.dom.minidom  # modules of several thousand objects
from apps import memory
before = len(gc.get_objects())
assert memory.settle() and not memory.settle()
assert len(gc.get_objects()) < before / 10, (before, len(gc.get_objects()))
class Pair: pass
import weakref
pair = Pair(); pair.own = pair; gone = weakref.ref(pair)
del pair
gc.collect()
assert gone() is None  # later garbage is still found
import sqlite3
assert memory.settle()
"""


def test_collections_look_at_what_came_after_the_imported_modules() -> None:
    subprocess.run([sys.executable, "-c", SETTLING], check=True)
