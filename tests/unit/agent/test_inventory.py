"""What the machine says of itself, read from files of another machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from controlplane.agent.inventory import Capacity, InventoryError, Meter, boot_id, capacity_of
from controlplane.model.resources import Amount


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "meminfo").write_text("MemTotal:        8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n")
    (tmp_path / "stat").write_text("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3 4\n")
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text("7f0c\n")
    return tmp_path


def test_what_is_configured_wins(proc: Path) -> None:
    assert capacity_of(Capacity(vcpu=3, memory_in_mb=100, microvms=7), proc) == Amount(
        microvms=7, vcpu=3, memory_in_mb=100
    )


def test_what_is_not_is_measured(proc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    found = capacity_of(Capacity(vcpu_per_cpu=2.5, reserved_memory_in_mb=512), proc)
    assert found == Amount(microvms=0, vcpu=15, memory_in_mb=8192 - 512)


def test_load_is_measured_between_two_readings(proc: Path) -> None:
    meter = Meter(proc)
    assert meter.latest.memory_available_mb == 4096
    (proc / "stat").write_text("cpu  120 0 110 740 130 0 0 0 0 0\n")
    assert meter.read().cpu_busy == pytest.approx(0.3)  # 30 of 100 ticks; waiting for a disk is idle
    assert meter.read().cpu_busy == pytest.approx(0.3), "without a tick in between the last reading stands"


def test_the_boot_is_named(proc: Path) -> None:
    assert boot_id(proc) == "7f0c"


@pytest.mark.parametrize("content", ["", "MemTotal: much kB\n", "MemTotal:\n"])
def test_a_file_that_does_not_say_is_named(proc: Path, content: str) -> None:
    (proc / "meminfo").write_text(content)
    with pytest.raises(InventoryError, match="meminfo"):
        capacity_of(Capacity(), proc)
    with pytest.raises(InventoryError, match="boot_id"):
        boot_id(proc / "sys")
