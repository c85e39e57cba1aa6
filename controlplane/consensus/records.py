"""What the journal's batches hold: tagged msgpack arrays. Tags and fields are appended, never renumbered."""

from __future__ import annotations

import msgspec


class Checkpoint(msgspec.Struct, tag=0, array_like=True, frozen=True):
    """Begins a file of format 1, which held the whole log: the state and the entries above the base."""

    index: int
    term: int
    current_term: int
    voted_for: str | None
    commit_index: int
    entries: list[tuple[int, bytes]]


class Entries(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """(term, command) of consecutive entries."""

    first_index: int
    entries: list[tuple[int, bytes]]


class Truncate(msgspec.Struct, tag=2, array_like=True, frozen=True):
    """The entries at `from_index` and above are removed."""

    from_index: int


class HardState(msgspec.Struct, tag=3, array_like=True, frozen=True):
    current_term: int
    voted_for: str | None


class CommitIndex(msgspec.Struct, tag=4, array_like=True, frozen=True):
    index: int


class Start(msgspec.Struct, tag=5, array_like=True, frozen=True):
    """Begins every segment: all that the segments before it say, but for the entries themselves."""

    base_index: int
    base_term: int
    last_index: int
    last_term: int
    current_term: int
    voted_for: str | None
    commit_index: int
    oldest_sequence: int
    """A chain of segments is whole when it reaches back to this batch."""


class Base(msgspec.Struct, tag=6, array_like=True, frozen=True):
    """A snapshot covers everything up to `index`; the segments before the batch `oldest_sequence` may be gone."""

    index: int
    term: int
    oldest_sequence: int


Record = Checkpoint | Entries | Truncate | HardState | CommitIndex | Start | Base

decoder = msgspec.msgpack.Decoder(list[Record])
encoder = msgspec.msgpack.Encoder()
