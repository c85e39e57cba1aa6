"""The journal: what was written is read, what is damaged is refused by name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.agent.journal import Journal, JournalError, Record, RecordPhase

RECORD = Record(uid="01ABC", epoch=2, phase=RecordPhase.ACTIVE, driver="qemu", generation=3, repair_seq=1)


async def test_records_are_there_after_a_restart(tmp_path: Path) -> None:
    journal = Journal.open(tmp_path)
    await journal.put(RECORD)
    other = Record(uid="02DEF", epoch=1, phase=RecordPhase.CREATING, driver="simulated", generation=1)
    await journal.put(other)
    await journal.remove("absent")
    assert Journal.open(tmp_path).records == {"01ABC": RECORD, "02DEF": other}
    await journal.remove("02DEF")
    assert Journal.open(tmp_path).records == {"01ABC": RECORD}


async def test_a_write_that_was_cut_short_leaves_the_record_before_it(tmp_path: Path) -> None:
    await Journal.open(tmp_path).put(RECORD)
    (tmp_path / ".01ABC.json").write_bytes(b'{"v":1,"crc')
    assert Journal.open(tmp_path).records == {"01ABC": RECORD}
    assert not (tmp_path / ".01ABC.json").exists()


@given(st.data())
async def test_any_damaged_byte_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("journal")
    await Journal.open(directory).put(RECORD)
    path = directory / "01ABC.json"
    good = path.read_bytes()
    position = data.draw(st.integers(0, len(good) - 1))
    bad = bytearray(good)
    bad[position] ^= data.draw(st.integers(1, 255))
    path.write_bytes(bad)
    with pytest.raises(JournalError, match=re.escape(str(path))):
        Journal.open(directory)


@pytest.mark.parametrize("content", [b"", b"null", b"[]", b"{}", b'{"v":2,"crc32":0,"record":{}}', b"\x00" * 100])
def test_what_is_no_record_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "01ABC.json"
    path.write_bytes(content)
    with pytest.raises(JournalError, match=str(path)):
        Journal.open(tmp_path)


async def test_a_record_under_another_name_is_refused(tmp_path: Path) -> None:
    await Journal.open(tmp_path).put(RECORD)
    (tmp_path / "01ABC.json").rename(tmp_path / "99.json")
    with pytest.raises(JournalError, match=r"99\.json: holds the record of 01ABC"):
        Journal.open(tmp_path)


def test_a_stranger_among_the_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(JournalError, match=r"notes\.txt: not a file of the journal"):
        Journal.open(tmp_path)


async def test_a_uid_is_no_path(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="cannot be a microVM's uid"):
        await Journal.open(tmp_path / "journal").put(
            Record(uid="../x", epoch=1, phase=RecordPhase.ACTIVE, driver="d", generation=1)
        )
    assert not (tmp_path / "x.json").exists()
