"""Local volumes of destroyed microVMs: what is kept, for how long, and what a crash at any point leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from support.builders import microvm_spec

from controlplane.drivers.qemu import quarantine
from controlplane.drivers.qemu.layout import Folder, sweep
from controlplane.drivers.qemu.quarantine import MANIFEST, Quarantine
from controlplane.model.spec import Volume, VolumeKind
from controlplane.ports import VMDefinition

NOW = 1_000_000
LOCAL, EPHEMERAL = Volume(kind=VolumeKind.LOCAL, size_in_mb=1), Volume(kind=VolumeKind.EPHEMERAL, size_in_mb=1)


class CrashError(BaseException):
    """The power goes: nothing handles it."""


@pytest.fixture
def kept(tmp_path: Path) -> Quarantine:
    (tmp_path / "vms").mkdir()
    return Quarantine(path=tmp_path / "quarantine", trash=tmp_path / "trash", keep_s=3600)


def destroyed(tmp_path: Path, *, data: Volume = LOCAL, epoch: int = 3, content: str = "precious") -> Folder:
    """The folder of a microVM of which nothing runs any more."""
    spec = microvm_spec(root_volume=EPHEMERAL, additional_volumes={"data": data})
    folder = Folder(tmp_path / "vms", "a")
    folder.save_definition(
        VMDefinition(
            cluster_id="c", uid="a", namespace="demo", name="web", epoch=epoch, generation=1, labels={}, spec=spec
        )
    )
    (folder.path / "disk.root.raw").write_text("worth nothing")
    (folder.path / "disk-data.raw").write_text(content)
    (folder.path / "console.log").write_text("hello")
    (folder.path / "share").mkdir(exist_ok=True)
    return folder


def test_local_disks_stay_with_a_manifest_and_nothing_else_does(tmp_path: Path, kept: Quarantine) -> None:
    folder = destroyed(tmp_path)
    assert kept.take(folder, NOW)
    assert not folder.exists()
    (entry,) = kept.entries()
    assert sorted(each.name for each in entry.path.iterdir()) == ["disk-data.raw", MANIFEST]
    assert (entry.path / "disk-data.raw").read_text() == "precious"
    assert json.loads((entry.path / MANIFEST).read_text()) == {
        "cluster_id": "c",
        "uid": "a",
        "namespace": "demo",
        "name": "web",
        "epoch": 3,
        "destroyed_at": NOW,
        "until": NOW + 3600,
        "volumes": {"/spec/additional_volumes/data": "disk-data.raw"},
    }
    assert entry.bytes == (entry.path / "disk-data.raw").stat().st_blocks * 512


def test_what_is_worth_nothing_is_not_kept(tmp_path: Path, kept: Quarantine) -> None:
    folder = destroyed(tmp_path, data=EPHEMERAL)
    assert not kept.take(folder, NOW)
    folder = destroyed(tmp_path)
    (folder.path / "disk-data.raw").unlink()
    assert not kept.take(folder, NOW), "it was never made"
    assert not kept.path.exists()
    assert not (folder.path / MANIFEST).exists()


def test_a_host_may_keep_nothing(tmp_path: Path) -> None:
    assert not Quarantine(tmp_path / "quarantine", tmp_path / "trash", 0).take(destroyed(tmp_path), NOW)


def test_what_is_kept_is_never_written_over(tmp_path: Path, kept: Quarantine) -> None:
    for number in range(3):
        assert kept.take(destroyed(tmp_path, content=f"of turn {number}"), NOW + number)
    assert [(each.path / "disk-data.raw").read_text() for each in kept.entries()] == [
        "of turn 0",
        "of turn 1",
        "of turn 2",
    ]


def test_an_entry_goes_when_its_time_is_over(tmp_path: Path, kept: Quarantine) -> None:
    kept.take(destroyed(tmp_path), NOW)
    kept.tidy(NOW + 3599)
    assert len(kept.entries()) == 1
    kept.tidy(NOW + 3600)
    assert kept.entries() == []
    assert list(kept.trash.iterdir()) == []


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_the_oldest_goes_while_the_disk_is_nearly_full(
    tmp_path: Path, kept: Quarantine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for epoch in (3, 1, 2):
        kept.take(destroyed(tmp_path, epoch=epoch), NOW - epoch)

    def usage(_path: Path) -> Usage:
        return Usage(100, 95, 5) if len(kept.entries()) > 2 else Usage(100, 90, 10)

    monkeypatch.setattr(quarantine.shutil, "disk_usage", usage)
    kept.tidy(NOW)
    assert [each.manifest.epoch for each in kept.entries()] == [2, 1]


def test_what_somebody_put_hands_on_is_left_alone(tmp_path: Path, kept: Quarantine) -> None:
    kept.take(destroyed(tmp_path), NOW)
    (entry,) = kept.entries()
    (entry.path / MANIFEST).write_text("mine")
    (kept.path / "notes").mkdir()
    kept.tidy(NOW + 10**9)
    assert (entry.path / "disk-data.raw").read_text() == "precious"
    assert (kept.path / "notes").is_dir()


class Power:
    """Goes off before the change of the file system with the given number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for owner, name in ((Path, "rename"), (Path, "unlink"), (Path, "mkdir"), (shutil, "rmtree")):
            monkeypatch.setattr(owner, name, self._watched(getattr(owner, name)))

    def _watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if self.left is not None:
                if self.left == 0:
                    raise CrashError
                self.left -= 1
            return function(*args, **options)

        return call

    def lasts(self, changes: int, function: Callable[[], object]) -> bool:
        """Whether `function` ends before the power does."""
        self.left = changes
        try:
            function()
        except CrashError:
            return False
        finally:
            self.left = None
        return True


def test_no_crash_loses_the_data_or_leaves_anything_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    power, changes, done = Power(monkeypatch), 0, False
    while not done:
        place = tmp_path / str(changes)
        (place / "vms").mkdir(parents=True)
        folder = destroyed(place)
        kept = Quarantine(path=place / "quarantine", trash=place / "trash", keep_s=3600)
        done = power.lasts(changes, lambda kept=kept, folder=folder: kept.take(folder, NOW))
        # The agent starts again: the driver tidies, and whoever wants the microVM gone repeats it.
        kept.tidy(NOW + 1)
        if folder.exists():
            assert folder.definition() is not None, "it is still a microVM, so its destruction is repeated"
            assert kept.take(folder, NOW + 1)
        (entry,) = kept.entries()
        assert sorted(each.name for each in entry.path.iterdir()) == ["disk-data.raw", MANIFEST]
        assert (entry.path / "disk-data.raw").read_text() == "precious"
        changes += 1
    assert changes > 5


def test_no_crash_of_a_deletion_leaves_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    power, changes, done = Power(monkeypatch), 0, False
    while not done:
        place = tmp_path / str(changes)
        (place / "vms").mkdir(parents=True)
        kept = Quarantine(path=place / "quarantine", trash=place / "trash", keep_s=1)
        kept.take(destroyed(place), NOW)
        done = power.lasts(changes, lambda kept=kept: kept.tidy(NOW + 1))
        sweep(kept.trash)
        kept.tidy(NOW + 1)
        assert kept.entries() == []
        assert list(kept.path.iterdir()) == list(kept.trash.iterdir()) == []
        changes += 1
    assert changes > 2


def test_once_a_cluster_says_when_entries_go_no_clock_of_the_host_does(tmp_path: Path) -> None:
    kept = Quarantine(path=tmp_path / "quarantine", trash=tmp_path / "trash", keep_s=0)
    (tmp_path / "vms").mkdir()
    assert not kept.take(destroyed(tmp_path), NOW), "until it says so, the host's own setting holds"
    kept.keep_until_told()
    again = Quarantine(path=tmp_path / "quarantine", trash=tmp_path / "trash", keep_s=0)
    assert again.take(destroyed(tmp_path), NOW), "also after a restart"
    again.tidy(NOW + 10**9)
    (entry,) = again.entries()
    again.delete("../vms", "it was ordered")
    again.delete(entry.path.name, "it was ordered")
    again.delete(entry.path.name, "it was ordered")
    assert (again.entries(), (tmp_path / "vms").exists()) == ([], True)
