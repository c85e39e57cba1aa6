"""The export of the audit chain: whatever moment its process dies at, each record is there once."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.audit.files import ExportError, ExportFiles
from controlplane.model.audit import GENESIS, AuditOutcome, AuditRecord, followed, read_lines, sealed


def chain(length: int) -> list[AuditRecord]:
    records: list[AuditRecord] = []
    previous = GENESIS
    for number in range(1, length + 1):
        bare = AuditRecord(
            sequence=number,
            at=number,
            action="delete",
            outcome=AuditOutcome.DELETED,
            name=f"n{number}",
            previous=previous,
        )
        records.append(sealed(bare))
        previous = records[-1].hash
    return records


RECORDS = chain(40)


def exported(directory: Path) -> list[AuditRecord]:
    lines = [line for path in sorted(directory.glob("audit-*.jsonl")) for line in path.read_bytes().splitlines(True)]
    return list(followed(read_lines(lines)))


def test_it_goes_on_where_it_was_in_files_of_their_owner_alone(tmp_path: Path) -> None:
    directory = tmp_path / "audit"
    files = ExportFiles(directory, file_bytes=2000)
    files.append(RECORDS[:17])
    files.append([])
    files.close()
    files = ExportFiles(directory, file_bytes=2000)
    assert files.last == RECORDS[16]
    files.append(RECORDS[17:])
    files.close()
    assert exported(directory) == RECORDS
    paths = list(directory.glob("audit-*.jsonl"))
    assert len(paths) > 2
    assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {0o600}
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_crash_at_any_byte_loses_nothing(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("audit")
    files = ExportFiles(directory, file_bytes=1500)
    files.append(RECORDS[:20])
    files.close()
    newest = max(directory.glob("audit-*.jsonl"))
    os.truncate(newest, data.draw(st.integers(0, newest.stat().st_size)))
    files = ExportFiles(directory, file_bytes=1500)
    written = files.last.sequence if files.last is not None else 0
    files.append(RECORDS[written:])
    files.close()
    assert exported(directory) == RECORDS


def test_one_process_at_a_time_has_the_directory(tmp_path: Path) -> None:
    files = ExportFiles(tmp_path)
    with pytest.raises(ExportError, match="another process"):
        ExportFiles(tmp_path)
    files.close()
    ExportFiles(tmp_path).close()


@pytest.mark.parametrize("junk", [b"no record\n", b"x" * 100_000])
def test_what_is_no_export_is_left_alone_and_said(tmp_path: Path, junk: bytes) -> None:
    path = tmp_path / "audit-0000000000000001.jsonl"
    path.write_bytes(junk)
    with pytest.raises(ExportError, match="move the file away"):
        ExportFiles(tmp_path)
    assert path.read_bytes() == junk


def test_files_of_a_history_that_was_undone_are_set_aside_whole(tmp_path: Path) -> None:
    files = ExportFiles(tmp_path, file_bytes=1500)
    files.append(RECORDS[:20])
    aside = files.set_aside()
    files.append(RECORDS[:5])
    files.close()
    assert exported(aside) == RECORDS[:20]
    assert exported(tmp_path) == RECORDS[:5]
