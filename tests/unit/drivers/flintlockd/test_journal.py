"""The journal gives back what was put, after any restart, and refuses what it did not write."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from msgspec.structs import replace as replace_struct

from controlplane.drivers.flintlockd.journal import NAMESPACES_FILE, Journal, Phase, Record
from controlplane.model.spec import Interface, Kernel, MicroVMSpec, StaticAddress, Volume
from controlplane.ports import DriverError, VMDefinition

VM = VMDefinition(
    cluster_id="C",
    uid="01JD0000000000000000000001",
    namespace="demo",
    name="web",
    epoch=2,
    generation=9,
    labels={"tier": "web"},
    spec=MicroVMSpec(
        vcpu=1,
        memory_in_mb=1024,
        kernel=Kernel(image="k"),
        root_volume=Volume(container_source="r"),
        interfaces={"eth1": Interface(address=StaticAddress(address="10.0.0.2/24", nameservers=["10.0.0.1"]))},
    ),
)


def loaded(state_dir: Path) -> Journal:
    journal = Journal(state_dir)
    journal.load()
    return journal


def test_records_survive_a_restart(tmp_path: Path) -> None:
    journal = loaded(tmp_path)
    first = Record(definition=VM, phase=Phase.CREATING, in_doubt=True, at_ms=5)
    other = Record(definition=replace(VM, uid="OTHER", namespace="prod"), phase=Phase.CREATED, native_id="N")
    journal.put(first)
    journal.put(other)
    assert loaded(tmp_path).all() == {VM.uid: first, "OTHER": other}
    second = replace_struct(first, phase=Phase.DESTROYED)
    journal.put(second)
    journal.remove("OTHER")
    journal.remove("OTHER")
    again = loaded(tmp_path)
    assert (again.get(VM.uid), again.get("OTHER")) == (second, None)
    assert again.namespaces == {"demo", "prod"}, "a namespace once used is never forgotten"


@pytest.mark.parametrize("content", [b"", b"{}", b'{"definition": 1}', b"\xff\xfe"])
def test_a_damaged_record_stops_the_driver_and_is_named(tmp_path: Path, content: bytes) -> None:
    loaded(tmp_path).put(Record(definition=VM, phase=Phase.CREATED))
    path = tmp_path / "journal" / f"{VM.uid}.json"
    path.write_bytes(content)
    with pytest.raises(DriverError, match=str(path)) as failure:
        loaded(tmp_path)
    assert (failure.value.code, failure.value.retryable) == ("JournalCorrupt", False)


def test_a_record_under_another_uid_is_refused(tmp_path: Path) -> None:
    loaded(tmp_path).put(Record(definition=VM, phase=Phase.CREATED))
    path = tmp_path / "journal" / f"{VM.uid}.json"
    path.rename(path.with_stem("SOMEONE"))
    with pytest.raises(DriverError, match=f"is about {VM.uid}"):
        loaded(tmp_path)


def test_damaged_namespaces_are_named(tmp_path: Path) -> None:
    (tmp_path / NAMESPACES_FILE).write_bytes(b'{"demo": 1}')
    with pytest.raises(DriverError, match=NAMESPACES_FILE):
        loaded(tmp_path)


def test_an_interrupted_write_leaves_the_record_before_it(tmp_path: Path) -> None:
    record = Record(definition=VM, phase=Phase.CREATED)
    loaded(tmp_path).put(record)
    (tmp_path / "journal" / f"{VM.uid}.new").write_bytes(b'{"defin')
    assert loaded(tmp_path).all() == {VM.uid: record}


@pytest.mark.parametrize("uid", ["", "../escape", "a/b", "a.b", "x" * 65])
def test_a_uid_never_leaves_the_directory(tmp_path: Path, uid: str) -> None:
    with pytest.raises(DriverError, match="not a uid"):
        loaded(tmp_path / "state").put(Record(definition=replace(VM, uid=uid), phase=Phase.CREATING))
    assert [path.name for path in (tmp_path / "state" / "journal").iterdir()] == []


def test_a_disk_that_refuses_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    journal = loaded(tmp_path)
    record = Record(definition=VM, phase=Phase.CREATED)
    journal.put(record)
    (tmp_path / "journal" / f"{VM.uid}.new").mkdir()
    with pytest.raises(DriverError) as failure:
        journal.put(replace_struct(record, phase=Phase.DESTROYED))
    assert (failure.value.code, failure.value.retryable) == ("JournalUnavailable", True)
    assert journal.get(VM.uid) == record
