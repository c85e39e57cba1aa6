"""What the watchdog decides, without a process: which lease counts, and what it means for a guest."""

from __future__ import annotations

import math
from typing import Any

import pytest

from controlplane.drivers.qemu.watchdog import LONGEST_S, UNGRANTED_GRACE_S, Right, verdict

HELD = Right(ends=100.0, grace=2.0, ttl=10.0)


@pytest.mark.parametrize(
    ("action", "now", "expected"),
    [
        ("pause", 99.9, ("run", 100.0)),
        ("pause", 100.0, ("halt", 102.0)),
        ("pause", 101.9, ("halt", 102.0)),
        ("pause", 102.0, ("kill", math.inf)),
        ("stop", 99.9, ("run", 100.0)),
        ("stop", 100.0, ("kill", math.inf)),
    ],
)
def test_what_a_lease_means_for_a_guest(action: str, now: float, expected: tuple[str, float]) -> None:
    assert verdict(HELD, action, 50.0, now) == expected


def test_without_a_lease_nothing_runs() -> None:
    assert verdict(None, "pause", 50.0, 50.0) == ("halt", 50.0 + UNGRANTED_GRACE_S)
    assert verdict(None, "pause", 50.0, 50.0 + UNGRANTED_GRACE_S) == ("kill", math.inf)
    assert verdict(None, "stop", 50.0, 50.0) == ("kill", math.inf)


def test_a_lease_never_gets_shorter() -> None:
    longer: dict[str, Any] = {"ends": 101.0, "grace": 1.0, "ttl": None}
    assert Right.renewed(HELD, longer, 90.0) == Right(101.0, 1.0, None)
    assert Right.renewed(HELD, {**longer, "ends": 99.0}, 90.0) is HELD
    assert Right.renewed(None, longer, 90.0) == Right(101.0, 1.0, None)


@pytest.mark.parametrize(
    "told",
    [
        {"ends": 90.0 + LONGEST_S, "grace": 2.0},
        {"ends": 100.0, "grace": -1.0},
        {"ends": 100.0, "grace": LONGEST_S + 1},
        {"ends": math.nan, "grace": 2.0},
        {"ends": "soon", "grace": 2.0},
    ],
)
def test_what_is_no_lease_is_refused(told: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"not possible|could not convert"):
        Right.renewed(HELD, told, 90.0)
