"""Snapshots of the replica for whoever takes a backup: a point in the log that includes every acknowledged write, held
while its chunks are read.

The state is immutable, so holding a snapshot costs what changes meanwhile. Making its manifest encodes every part that
changed since the last one, in a thread; chunks are encoded again when they are asked for, so nothing large is kept. A
snapshot that nobody reads for `IDLE_S` is let go: whoever was reading takes another one, and finds that the chunks it
has are still good, since they are named by their content.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from controlplane.machine.codec import View
from controlplane.machine.state import State
from controlplane.manifest import FORMAT, ChunkRef, Manifest, StatePart, chunk_ref, encode_manifest
from controlplane.ports import Clock, HeldSnapshot, Ids, LogStatus, SnapshotGoneError, SnapshotsBusyError

IDLE_S = 120.0
MAX_HELD = 4

Known = dict[str, tuple[tuple[object, ...], tuple[ChunkRef, ...]]]
"""By the key of a part: what it was made of, and its chunks."""


@dataclass(slots=True)
class _Held:
    encoded: bytes
    parts: Mapping[str, tuple[StatePart, int]]
    """By the chunk's name: the part that it is of, and which of its chunks."""
    used_s: float


class Snapshots:
    """Implements `ports.SnapshotSource`.

    `fresh` gives (state, index, term) that reflect every write acknowledged before the call; `configuration` the
    members as the log encodes them.
    """

    def __init__(
        self,
        *,
        fresh: Callable[[float], Awaitable[tuple[State, int, int]]],
        status: Callable[[], Awaitable[LogStatus]],
        configuration: Callable[[LogStatus], bytes],
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._fresh = fresh
        self._status = status
        self._configuration = configuration
        self._clock = clock
        self._ids = ids
        self._held: dict[str, _Held] = {}
        self._known: Known = {}
        self._making = asyncio.Lock()

    async def take(self, *, timeout_s: float) -> HeldSnapshot:
        async with self._making:
            self._make_room()
            status = await self._status()
            state, index, term = await self._fresh(timeout_s)
            view = View(state)
            refs, chunks, known = await asyncio.to_thread(_survey, view, self._known)
            self._known = known
            manifest = Manifest(
                format=FORMAT,
                cluster_id=state.cluster_id,
                incarnation=status.incarnation,
                index=index,
                term=term,
                entry_index=index,
                configuration=self._configuration(status),
                header=view.header(),
                chunks=tuple(refs),
                size=sum(ref.size for ref in refs),
                configuration_index=status.configuration_index,
            )
            encoded = await asyncio.to_thread(encode_manifest, manifest)
            id_ = self._ids.new()
            self._held[id_] = _Held(encoded, chunks, self._clock.monotonic_s())
        return HeldSnapshot(id_, encoded, manifest, state.revision, IDLE_S)

    async def manifest(self, id_: str) -> bytes:
        return self._use(id_).encoded

    async def chunks(self, id_: str, names: Sequence[str]) -> list[bytes]:
        held = self._use(id_)
        missing = next((name for name in names if name not in held.parts), None)
        if missing is not None:
            raise SnapshotGoneError(f"snapshot {id_} has no chunk {missing}")
        found = await asyncio.to_thread(_encode, [held.parts[name] for name in names])
        held.used_s = self._clock.monotonic_s()
        return found

    async def release(self, id_: str) -> None:
        self._held.pop(id_, None)

    @property
    def held(self) -> Collection[str]:
        """Ids of the snapshots that are held."""
        return self._held.keys()

    def _use(self, id_: str) -> _Held:
        self._forget_idle()
        held = self._held.get(id_)
        if held is None:
            raise SnapshotGoneError(f"snapshot {id_} is not held here (any more); take another one")
        held.used_s = self._clock.monotonic_s()
        return held

    def _forget_idle(self) -> None:
        now_s = self._clock.monotonic_s()
        for id_ in [id_ for id_, held in self._held.items() if now_s - held.used_s > IDLE_S]:
            del self._held[id_]

    def _make_room(self) -> None:
        self._forget_idle()
        if len(self._held) >= MAX_HELD:
            raise SnapshotsBusyError(f"{MAX_HELD} snapshots are being read at this node already")


def _survey(view: View, known: Known) -> tuple[list[ChunkRef], dict[str, tuple[StatePart, int]], Known]:
    """Every chunk of `view`; parts that are the very same as in `known` are not encoded again."""
    refs: list[ChunkRef] = []
    chunks: dict[str, tuple[StatePart, int]] = {}
    now_known: Known = {}
    for part in view.parts():
        before = known.get(part.key)
        if before is not None and _same(before[0], part.identity):
            found = before[1]
        else:
            found = tuple(chunk_ref(part.key, data) for data in part.encode())
        now_known[part.key] = (part.identity, found)
        refs += found
        for number, ref in enumerate(found):
            chunks[ref.name] = (part, number)
    return refs, chunks, now_known


def _same(one: tuple[object, ...], other: tuple[object, ...]) -> bool:
    return len(one) == len(other) and all(a is b for a, b in zip(one, other, strict=True))


def _encode(wanted: Sequence[tuple[StatePart, int]]) -> list[bytes]:
    return [part.encode()[number] for part, number in wanted]
