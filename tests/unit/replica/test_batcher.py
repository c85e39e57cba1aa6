"""The batcher over a log that is held back: what is sent, and what is not sent any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest

from controlplane.machine.outcome import Outcome
from controlplane.model.commands import DeclareNamespace, Envelope, decode_entry, seal
from controlplane.model.spec import NamespaceSpec
from controlplane.ports import (
    Committed,
    Led,
    LogStatus,
    NoLeaderError,
    OutcomeUnknownError,
    Position,
    SnapshotInstalled,
)
from controlplane.replica.batcher import MAX_IN_FLIGHT, Batcher
from controlplane.system import SystemClock, Ulids

DEADLINE_S = 5.0


class HeldLog:
    """Takes entries and answers none of them until `released`."""

    def __init__(self) -> None:
        self.entries: list[bytes] = []
        self.released = asyncio.Event()

    async def append(self, entry: bytes, *, timeout_s: float) -> Position:
        self.entries.append(entry)
        await self.released.wait()
        return Position(len(self.entries), 1)

    async def confirm_leadership(self, *, timeout_s: float) -> Led:
        raise NotImplementedError

    async def read_index(self, *, timeout_s: float) -> int:
        raise NotImplementedError

    def follow(self, after: int) -> AsyncGenerator[Committed | SnapshotInstalled]:
        raise NotImplementedError

    async def status(self) -> LogStatus:
        raise NotImplementedError

    def sent(self) -> set[str]:
        return {envelope.id for entry in self.entries for envelope in decode_entry(entry)}


def envelope(name: str) -> Envelope:
    command = DeclareNamespace(name=name, uid=Ulids().new(), spec=NamespaceSpec())
    return seal(command, id=Ulids().new(), at=0, actor="test", key=None)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110 - there is no event to wait for
            await asyncio.sleep(0.001)


async def test_what_nobody_waits_for_any_more_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change whose caller was told that its outcome is unknown must not reach the log long after that."""
    monkeypatch.setattr("controlplane.replica.batcher.SLOT_S", 60)
    log = HeldLog()
    batcher = Batcher(log, SystemClock())
    running = asyncio.create_task(batcher.run())
    waiting: list[asyncio.Task[Outcome]] = []
    for number in range(MAX_IN_FLIGHT):
        waiting.append(asyncio.create_task(batcher.propose(envelope(f"n{number}"), timeout_s=60)))
        await until(lambda: len(log.entries) == len(waiting))
    late, live = envelope("late"), envelope("live")
    with pytest.raises(OutcomeUnknownError):
        await batcher.propose(late, timeout_s=0.01)
    waiting.append(asyncio.create_task(batcher.propose(live, timeout_s=60)))
    log.released.set()
    await until(lambda: live.id in log.sent())
    assert late.id not in log.sent()
    running.cancel()
    for task in waiting:
        task.cancel()
    await asyncio.gather(running, *waiting, return_exceptions=True)


async def test_entries_that_are_never_answered_do_not_hold_up_others() -> None:
    """A frozen leader answers nothing; what is proposed later must reach the log, which knows the next leader."""
    log = HeldLog()
    batcher = Batcher(log, SystemClock())
    running = asyncio.create_task(batcher.run())
    callers: list[asyncio.Task[Outcome]] = []
    try:
        for number in range(MAX_IN_FLIGHT + 1):
            callers.append(asyncio.create_task(batcher.propose(envelope(f"n{number}"), timeout_s=DEADLINE_S)))
            # Each in an entry of its own.
            await until(lambda sent=number: len(log.entries) > sent)
    finally:
        for caller in callers:
            caller.cancel()
        running.cancel()
        await asyncio.gather(running, *callers, return_exceptions=True)


async def test_a_process_that_ends_says_what_is_known_of_every_proposal(monkeypatch: pytest.MonkeyPatch) -> None:
    """No log answers any more when a whole cluster stops; callers must not be cut off without a word."""
    monkeypatch.setattr("controlplane.replica.batcher.SLOT_S", 60)
    log = HeldLog()
    batcher = Batcher(log, SystemClock())
    running = asyncio.create_task(batcher.run())
    sent: list[asyncio.Task[Outcome]] = []
    for number in range(MAX_IN_FLIGHT):
        sent.append(asyncio.create_task(batcher.propose(envelope(f"n{number}"), timeout_s=60)))
        await until(lambda: len(log.entries) == len(sent))
    queued = asyncio.create_task(batcher.propose(envelope("queued"), timeout_s=60))
    await asyncio.sleep(0)
    batcher.close(0.01)
    async with asyncio.timeout(DEADLINE_S):
        ended = await asyncio.gather(*sent, queued, return_exceptions=True)
    assert [type(each) for each in ended] == [OutcomeUnknownError] * MAX_IN_FLIGHT + [NoLeaderError]
    with pytest.raises(NoLeaderError):
        await batcher.propose(envelope("later"), timeout_s=60)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
