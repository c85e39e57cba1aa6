"""A process that holds a large state is not stopped again and again by full passes of the garbage collector."""

from __future__ import annotations

import subprocess
import sys

HOLD_MUCH = """
import gc
from controlplane.bootstrap.process import calm_collector
if {calm}:
    calm_collector()
before = gc.get_stats()[2]["collections"]
held = [[number] for number in range(400_000)]
print(gc.get_stats()[2]["collections"] - before)
"""


def full_passes(*, calm: bool) -> int:
    command = [sys.executable, "-c", HOLD_MUCH.format(calm=calm)]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_growing_brings_no_full_pass() -> None:
    assert full_passes(calm=False) > 0
    assert full_passes(calm=True) == 0


def test_cycles_are_still_collected() -> None:
    code = """
import gc, weakref
from controlplane.bootstrap.process import calm_collector
calm_collector()
class Node: pass
first = Node(); first.itself = first
gone = weakref.ref(first)
del first
held = [[number] for number in range(50_000)]
print(gone() is None)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "True"
