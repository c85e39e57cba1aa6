"""Follows the chain and writes it into this node's files, and tells the log how far it is.

Level-triggered: whenever the chain does not end as the files do, what they lack is written, so many records at a time;
the disk is waited for in a thread. What comes within `GATHER_S` of a write is written together, by one sync: until then
every node's state holds it, durably. How far the files are is only ever read from themselves. The log is told after
`TELL_RECORDS`, or after `TELL_S` where there is anything to tell; a record that was told is never dropped too early,
and telling late costs nothing but memory.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import structlog

from controlplane.audit.files import ExportError, ExportFiles
from controlplane.machine.state import State
from controlplane.model.audit import AuditRecord
from controlplane.model.commands import ExportedAudit
from controlplane.ports import Clock, LogError, Proposer, StateReader

ACTOR = "audit"
AT_ONCE = 500
GATHER_S = 0.25
TELL_RECORDS = 2_000
TELL_S = 30.0
RETRY_S = 5.0

_log = structlog.get_logger(__name__)


class Exporter:
    def __init__(self, reader: StateReader, proposer: Proposer, clock: Clock, *, node: str, directory: Path) -> None:
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._node = node
        self._directory = directory
        self._told = 0
        self._told_s = clock.monotonic_s()

    async def run(self) -> None:
        """Until cancelled. A disk that fails is tried again: the records wait in the state meanwhile."""
        while True:
            try:
                files = await asyncio.to_thread(ExportFiles, self._directory)
                try:
                    await self._export(files)
                finally:
                    files.close()
            except (ExportError, OSError) as error:
                _log.error("audit.not_exported", error=str(error))
            await asyncio.sleep(RETRY_S)

    async def _export(self, files: ExportFiles) -> None:
        while True:
            differs = await self._reader.until(partial(_differs, files.last), timeout_s=TELL_S)
            written = await self._write(files) if differs is not None and await self._check(files) else 0
            await self._tell(files.last.sequence if files.last is not None else 0)
            if 0 < written < AT_ONCE:
                await asyncio.sleep(GATHER_S)

    async def _write(self, files: ExportFiles) -> int:
        """What the files lack, at most `AT_ONCE` records; gives how many."""
        state = self._reader.state
        begin = files.last.sequence + 1 if files.last is not None else state.audit_first
        if begin < state.audit_first:
            _log.error("audit.gap", missing_from=begin, missing_to=state.audit_first - 1)
            begin = state.audit_first
        end = min(state.audit_head, begin + AT_ONCE - 1)
        if begin > end:
            return 0
        records = [state.audit_at(sequence) for sequence in range(begin, end + 1)]
        writing = asyncio.create_task(asyncio.to_thread(files.append, records))
        try:
            await asyncio.shield(writing)
        finally:
            # Who stops this closes the files, and a thread cannot be stopped.
            await asyncio.wait([writing])
        return len(records)

    async def _check(self, files: ExportFiles) -> bool:
        """Set the files aside if the chain goes on otherwise than they do. False: it cannot be told yet."""
        if files.last is None or _has(self._reader.state, files):
            return True
        try:
            state = await self._reader.fresh()
        except LogError:
            await asyncio.sleep(RETRY_S)
            return False
        if not _has(state, files):
            aside = files.set_aside()
            _log.warning("audit.set_aside", directory=str(aside), reason="the chain goes on otherwise: a restore?")
        return True

    async def _tell(self, through: int) -> None:
        late = self._clock.monotonic_s() - self._told_s >= TELL_S
        if through == self._told or not (late or abs(through - self._told) >= TELL_RECORDS):
            return
        try:
            await self._proposer.propose(ExportedAudit(node=self._node, through=through), actor=ACTOR)
        except LogError as error:
            _log.info("audit.not_told", error=str(error))
            return
        self._told, self._told_s = through, self._clock.monotonic_s()


def _differs(last: AuditRecord | None, state: State) -> bool:
    if last is None or state.audit_head != last.sequence:
        return state.audit_head > 0 or last is not None
    return state.audit_at(last.sequence).hash != last.hash


def _has(state: State, files: ExportFiles) -> bool:
    """What the files end with is in the chain of `state`, or was before what is held of it."""
    assert files.last is not None
    if files.last.sequence < state.audit_first:
        return state.audit_head > 0
    return files.last.sequence <= state.audit_head and state.audit_at(files.last.sequence).hash == files.last.hash
