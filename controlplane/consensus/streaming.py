"""A snapshot's chunks as those who follow the log get them: one at a time, and it is known whether they all came."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from controlplane.consensus.errors import ConsensusError
from controlplane.consensus.stored import SnapshotReader
from controlplane.ports import SnapshotInstalled, SnapshotInterruptedError

_TURN_BYTES = 256 << 10
"""What is read in one turn of the event loop."""


class Chunks(AsyncIterator[bytes]):
    """Passes on what `source` gives; `complete` once it ended."""

    def __init__(self, source: AsyncIterator[bytes]) -> None:
        self._source = source
        self.complete = False

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._source)
        except StopAsyncIteration:
            self.complete = True
            raise


def installed(reader: SnapshotReader, failed: Callable[[Exception], None]) -> tuple[SnapshotInstalled, Chunks]:
    """The item that replaces a follower's state by the snapshot of `reader`, and its chunks.

    `failed` is told when the snapshot cannot be read.
    """
    chunks = Chunks(_read(reader, failed))
    manifest = reader.manifest
    return SnapshotInstalled(manifest.index, manifest.term, manifest.header, len(manifest.chunks), chunks), chunks


async def _read(reader: SnapshotReader, failed: Callable[[Exception], None]) -> AsyncIterator[bytes]:
    read = 0
    with reader:
        for position in range(len(reader.manifest.chunks)):
            try:
                data = reader.read(position)
            except (ConsensusError, OSError) as error:
                failed(error)
                raise SnapshotInterruptedError(str(error)) from error
            read += len(data)
            yield data
            if read > _TURN_BYTES:
                read = 0
                await asyncio.sleep(0)
