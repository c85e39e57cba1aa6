"""A small model of a file system under the `Disk` seam that knows every state a power loss can leave.

Operations happen for real (below a directory that the test owns), which is what the process and the page cache see.
Beside that the model keeps what is certain: of each file the bytes that were synced, of each directory the names that
were synced. A power loss keeps these, any subset of the names changed since (created, renamed, removed: in any
combination), and of the bytes appended since any prefix, or any subset of their 512-byte sectors with zeros in place
of the others.

`fail_syncs` makes syncs fail as Linux does: the bytes stay readable, count as clean, and no later sync of that file
writes them.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from controlplane.consensus.disk import Disk

SECTOR = 512
State = dict[Path, bytes]
"""The files that are there after a power loss."""


@dataclass(slots=True, eq=False)
class _File:
    content: bytearray = field(default_factory=bytearray)
    synced: int = 0
    never: list[tuple[int, int]] = field(default_factory=list)
    """Ranges that a failed sync left in memory only."""


@dataclass(frozen=True, slots=True)
class _Change:
    """Names changed by one operation in `directory`; None removes the name. Happens wholly or not at all."""

    directory: Path
    names: dict[Path, _File | None]


class ModelDisk(Disk):
    """See the module. `on_step` is called after every operation that changes something."""

    def __init__(self) -> None:
        super().__init__(durable=False)
        self.on_step: Callable[[], None] = lambda: None
        self.fail_syncs = False
        self._names: dict[Path, _File] = {}
        self._durable_names: dict[Path, _File] = {}
        self._changes: list[_Change] = []
        self._open: dict[int, _File] = {}
        self._directories: set[Path] = set()

    def adopt(self, root: Path) -> None:
        """Take the files that lie below `root` for durable."""
        for path in root.rglob("*"):
            if path.is_file():
                content = bytearray(path.read_bytes())
                self._names[path] = self._durable_names[path] = _File(content, len(content))

    # -- the seam ------------------------------------------------------------------------------------------------------

    def create(self, path: Path) -> int:
        fd = super().create(path)
        self._open[fd] = _File()
        self._change(path.parent, {path: self._open[fd]})
        return fd

    def open_append(self, path: Path) -> int:
        fd = super().open_append(path)
        self._open[fd] = self._names[path]
        return fd

    def close(self, fd: int) -> None:
        del self._open[fd]
        super().close(fd)

    def append(self, fd: int, data: bytes | bytearray) -> None:
        super().append(fd, data)
        self._open[fd].content += data
        self.on_step()

    def sync(self, fd: int) -> None:
        self.sync_new(fd)

    def sync_new(self, fd: int) -> None:
        file = self._open[fd]
        start, file.synced = file.synced, len(file.content)
        if self.fail_syncs:
            file.never.append((start, file.synced))
            raise OSError(5, "Input/output error")
        self.on_step()

    def rename(self, source: Path, target: Path) -> None:
        super().rename(source, target)
        self._change(target.parent, {source: None, target: self._names[source]})

    def remove(self, path: Path) -> None:
        super().remove(path)
        if path in self._names:
            self._change(path.parent, {path: None})

    def sync_directory(self, path: Path) -> None:
        for change in self._changes:
            if change.directory == path:
                _apply(self._durable_names, change)
        self._changes = [change for change in self._changes if change.directory != path]
        self.on_step()

    def add_directory(self, path: Path) -> None:
        super().add_directory(path)
        self._directories.add(path)
        self._change(path.parent, {path: _File()})

    def free_bytes(self, path: Path) -> int:
        return 1 << 40

    def _change(self, directory: Path, names: dict[Path, _File | None]) -> None:
        change = _Change(directory, names)
        _apply(self._names, change)
        self._changes.append(change)
        self.on_step()

    def _kept_changes(self, limit: int) -> Iterator[tuple[bool, ...]]:
        count = len(self._changes)
        if 2**count <= limit:
            yield from itertools.product((True, False), repeat=count)
            return
        yield (True,) * count
        yield (False,) * count
        chance = random.Random(count)
        for _ in range(limit - 2):
            yield tuple(chance.random() < 0.5 for _ in range(count))

    # -- power loss ----------------------------------------------------------------------------------------------------

    def crash_states(self, *, every_byte: bool, max_sectors: int = 6, max_names: int = 256) -> Iterator[State]:
        """Every state a power loss now may leave. Without `every_byte`, prefixes are cut near sector boundaries only;
        subsets of sectors are tried where at most `max_sectors` are unsynced; of the sets of changed names that are
        kept, at most `max_names` are tried: all, none, and others by chance.
        """
        seen: set[tuple[tuple[Path, int], ...]] = set()
        for kept in self._kept_changes(max_names):
            names = dict(self._durable_names)
            for change in itertools.compress(self._changes, kept):
                _apply(names, change)
            key = tuple(sorted((path, id(file)) for path, file in names.items()))
            if key in seen:
                continue
            seen.add(key)
            lost = self._directories - names.keys()
            names = {p: f for p, f in names.items() if p not in self._directories and lost.isdisjoint(p.parents)}
            certain = {path: _durable(file) for path, file in names.items()}
            unsure = {p: f for p, f in names.items() if len(f.content) > f.synced and p.suffix != ".tmp"}
            yield certain
            for path, file in unsure.items():
                for content in _remains(file, every_byte=every_byte, max_sectors=max_sectors):
                    yield {**certain, path: content}


def _apply(names: dict[Path, _File], change: _Change) -> None:
    for path, file in change.names.items():
        if file is None:
            names.pop(path, None)
        else:
            names[path] = file


def _durable(file: _File) -> bytes:
    content = file.content[: file.synced]
    for start, end in file.never:
        content[start:end] = bytes(end - start)
    return bytes(content)


def _remains(file: _File, *, every_byte: bool, max_sectors: int) -> Iterator[bytes]:
    """What may be there of a file whose last bytes were not synced."""
    durable, start, end = _durable(file), file.synced, len(file.content)
    whole = durable + bytes(file.content[start:])
    edges = {at + off for at in range(start, end + SECTOR, SECTOR) for off in (-1, 0, 1, 27, 28, 29)}
    cuts: Iterable[int] = range(start + 1, end + 1) if every_byte else sorted(c for c in edges if start < c <= end)
    for cut in cuts:
        yield whole[:cut]
    sectors = [(at, min(at + SECTOR, end)) for at in range(start, end, SECTOR)]
    if len(sectors) > max_sectors:
        return
    for lost in itertools.product((False, True), repeat=len(sectors)):
        content = bytearray(whole)
        for at, to in itertools.compress(sectors, lost):
            content[at:to] = bytes(to - at)
        yield bytes(content)
        kept = [to for (_, to), gone in zip(sectors, lost, strict=True) if not gone]
        yield bytes(content[: kept[-1] if kept else start])


def lay_out(state: State, root: Path, target: Path) -> None:
    """Write a state of the disk below `root` to `target`, which is emptied first."""
    for old in sorted(target.rglob("*"), reverse=True):
        old.rmdir() if old.is_dir() else old.unlink()
    target.mkdir(parents=True, exist_ok=True)
    for path, content in state.items():
        place = target / path.relative_to(root)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
