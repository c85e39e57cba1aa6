"""The archive that becomes an initrd."""

from __future__ import annotations

import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.images import cpio

names = st.from_regex(r"[a-z]{1,9}(/[a-z.]{1,9}){0,3}", fullmatch=True)


def parse(data: bytes) -> list[tuple[str, int, bytes]]:
    """(name, mode, data) of every member, by the format's description."""
    members: list[tuple[str, int, bytes]] = []
    position = 0
    while True:
        assert data[position : position + 6] == b"070701"
        fields = [int(data[position + 6 + 8 * i : position + 14 + 8 * i], 16) for i in range(13)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[position + 110 : position + 110 + name_size - 1].decode()
        begin = (position + 110 + name_size + 3) // 4 * 4
        position = (begin + size + 3) // 4 * 4
        if name == "TRAILER!!!":
            return members
        members.append((name, mode, data[begin : begin + size]))


@given(st.dictionaries(names, st.binary(max_size=50), max_size=8))
def test_members_come_back(contents: dict[str, bytes]) -> None:
    archive = cpio.archive(cpio.file(name, data) for name, data in contents.items())
    assert parse(archive) == [(name, stat.S_IFREG | 0o644, data) for name, data in contents.items()]
    assert len(archive) % 4 == 0


@pytest.mark.parametrize("name", ["", "/etc", "a\0b"])
def test_names_that_the_format_cannot_hold_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        cpio.archive([cpio.file(name, b"")])


def test_another_implementation_reads_it(tmp_path: Path) -> None:
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("needs busybox to unpack the archive: apt-get install busybox-static")
    archive = cpio.archive(
        [cpio.directory("d"), cpio.file("d/f", b"data", 0o755), cpio.symlink("l", "d/f"), cpio.file("empty", b"")]
    )
    subprocess.run([busybox, "cpio", "-i"], input=archive, cwd=tmp_path, check=True, capture_output=True)
    assert (tmp_path / "l").read_bytes() == b"data"
    assert (tmp_path / "d/f").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "empty").stat().st_size == 0
