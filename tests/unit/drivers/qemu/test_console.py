"""The console file: true offsets, a bound, and the ready line however it arrives."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controlplane.drivers.qemu import console

MiB = 1 << 20


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def test_reading_by_offset(tmp_path: Path) -> None:
    path = tmp_path / "console"
    assert console.read(path, offset=5, limit=10) == (0, b"")
    append(path, b"0123456789")
    assert console.read(path, offset=0, limit=4) == (4, b"0123")
    assert console.read(path, offset=4, limit=99) == (10, b"456789")
    assert console.read(path, offset=-3, limit=99) == (10, b"789")
    assert console.read(path, offset=-99, limit=2) == (2, b"01")
    assert console.read(path, offset=99, limit=2) == (10, b"")
    assert console.read(path, offset=0, limit=-1) == (0, b"")


def test_old_output_gives_its_space_back_and_offsets_stay_true(tmp_path: Path) -> None:
    path = tmp_path / "console"
    console.trim(path)
    writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        lines = b"".join(b"line %07d\n" % number for number in range(1_000_000))
        os.write(writer, lines[: 7 * MiB])
        console.trim(path)
        assert console.read(path, offset=0, limit=12) == (12, lines[:12]), "trimmed below the bound"
        os.write(writer, lines[7 * MiB :])
        console.trim(path)
        # The writer goes on as if nothing had happened.
        os.write(writer, b"the end\n")
    finally:
        os.close(writer)
    everything = lines + b"the end\n"
    assert console.size(path) == len(everything)
    kept = path.stat().st_blocks * 512
    assert console.KEEP_BYTES <= kept <= console.KEEP_BYTES + 64 * 1024
    after, data = console.read(path, offset=0, limit=100)
    assert data == everything[after - 100 : after], "what was removed is skipped, and the offset says so"
    assert after - 100 >= len(everything) - console.KEEP_BYTES - 8192
    assert console.read(path, offset=-8, limit=99) == (len(everything), b"the end\n")
    console.trim(path)
    assert path.stat().st_blocks * 512 == kept


def test_the_ready_line_counts_from_the_start_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "console"
    append(path, b"flintlock: ready\n")
    watch = console.ReadyWatch(path, console.size(path))
    assert not watch.look()
    append(path, b"flintlock: ready\r\n")
    assert watch.look()
    assert console.ReadyWatch(path, 0).look()
    assert not console.ReadyWatch(tmp_path / "absent", 0).look()


def test_a_line_that_only_mentions_it_does_not_count(tmp_path: Path) -> None:
    path = tmp_path / "console"
    append(path, b"waiting for flintlock: ready\nflintlock: not ready\n")
    assert not console.ReadyWatch(path, 0).look()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(st.binary(max_size=40), st.lists(st.integers(0, 80), max_size=12), st.integers(0, 10**9))
def test_the_ready_line_is_found_in_any_pieces(tmp_path: Path, noise: bytes, cuts: list[int], name: int) -> None:
    path = tmp_path / f"console-{name}"
    path.unlink(missing_ok=True)
    text = noise + b"\n" + console.READY_LINE + b"\n"
    watch = console.ReadyWatch(path, 0)
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    for begin, end in pairwise(borders):
        append(path, text[begin:end])
        complete = b"\n" + console.READY_LINE in b"\n" + text[:end]
        assert watch.look() == complete
    assert watch.seen
