"""The build by which the chaos checks show that they can fail is really broken."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from controlplane.drivers.qemu import watchdog

DEAF = Path(__file__).resolve().parents[2] / "chaos" / "deaf_watchdog.py"


def test_no_lease_ends_for_a_deaf_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    def verdict() -> str:
        """On a guest that never had a lease."""
        return watchdog.verdict(None, "stop", 0.0, 100.0)[0]

    monkeypatch.setattr(watchdog, "verdict", watchdog.verdict)
    monkeypatch.setattr(watchdog, "main", lambda: 0)
    monkeypatch.setitem(sys.modules, "watchdog", watchdog)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert verdict() == "kill"
    with pytest.raises(SystemExit):
        runpy.run_path(str(DEAF), run_name="__main__")
    assert verdict() == "run"
