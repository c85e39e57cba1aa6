"""Group commit on the proposer's side: commands that wait at the same time share a log entry.

A proposal that certainly did not reach the log (no leader) is tried again until its deadline, so that a change of
leader is a pause for callers and not an error. One whose fate is unknown is never sent again: its caller waits until
the replica applies it, or learns at the deadline that the outcome is unknown.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from functools import partial

import structlog

from controlplane.machine.outcome import Outcome
from controlplane.model.commands import Envelope, encode_entry
from controlplane.ports import (
    Clock,
    EntryTooLargeError,
    Log,
    LogError,
    NoLeaderError,
    OutcomeUnknownError,
)

MAX_COMMANDS = 512
MAX_BATCH_BYTES = 1 << 20
MAX_IN_FLIGHT = 3
"""Entries on their way at the same time: enough that one is written while another travels. More of them would be
smaller, and an entry costs every process of the cluster about as much as some ten commands, however many it holds."""
SLOT_S = 0.1
"""An entry that is on its way for so long is waited for without holding up others: its leader may be frozen, and the
next one takes theirs."""
RETRY_S = 0.05
GRACE_S = 0.5
"""After its deadline, how long a proposal waits for the log to say whether it was written."""

_STOPS = "this node stops; nothing was written"

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Proposal:
    envelope: Envelope
    deadline: float
    outcome: asyncio.Future[Outcome] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class _Slot:
    """The right to be on the way: given back once, when the answer came or after `SLOT_S`, whatever is sooner."""

    def __init__(self, slots: asyncio.Semaphore) -> None:
        self._slots: asyncio.Semaphore | None = slots
        self._timer = asyncio.get_running_loop().call_later(SLOT_S, self.give_back)

    def give_back(self) -> None:
        self._timer.cancel()
        if self._slots is not None:
            self._slots.release()
            self._slots = None


def _give_up(proposal: _Proposal) -> None:
    if not proposal.outcome.done():
        proposal.outcome.set_exception(
            OutcomeUnknownError("the outcome did not arrive in time; repeat with the same key")
        )


class Batcher:
    def __init__(self, log: Log, clock: Clock) -> None:
        self._log = log
        self._clock = clock
        self._queue: deque[_Proposal] = deque()
        self._waiting: dict[str, _Proposal] = {}
        self._work = asyncio.Event()
        self._slots = asyncio.Semaphore(MAX_IN_FLIGHT)
        self._sends: set[asyncio.Task[None]] = set()
        self._closed = False

    async def propose(self, envelope: Envelope, *, timeout_s: float) -> Outcome:
        """The machine's outcome. Raises NoLeaderError, OutcomeUnknownError, EntryTooLargeError."""
        if self._closed:
            raise NoLeaderError(_STOPS)
        proposal = _Proposal(envelope, deadline=self._clock.monotonic_s() + timeout_s)
        self._waiting[envelope.id] = proposal
        self._queue.append(proposal)
        self._work.set()
        overdue = asyncio.get_running_loop().call_later(timeout_s + GRACE_S, _give_up, proposal)
        try:
            return await proposal.outcome
        finally:
            overdue.cancel()
            del self._waiting[envelope.id]

    def resolve(self, envelope_id: str, outcome: Outcome) -> None:
        """The replica applied this envelope."""
        proposal = self._waiting.get(envelope_id)
        if proposal is not None and not proposal.outcome.done():
            proposal.outcome.set_result(outcome)

    def close(self, within_s: float) -> None:
        """This process ends: whoever waits learns within `within_s` what is known of its proposal."""
        asyncio.get_running_loop().call_later(within_s, self._end_all)

    def _end_all(self) -> None:
        self._closed = True
        unsent = set(self._queue)
        for proposal in self._waiting.values():
            if proposal.outcome.done():
                continue
            if proposal in unsent:
                proposal.outcome.set_exception(NoLeaderError(_STOPS))
            else:
                proposal.outcome.set_exception(
                    OutcomeUnknownError("this node stopped before the outcome arrived; repeat with the same key")
                )

    async def run(self) -> None:
        """Send batches until cancelled."""
        try:
            while True:
                await self._work.wait()
                await self._slots.acquire()
                batch = self._take()
                if not batch:
                    self._work.clear()
                    self._slots.release()
                    continue
                slot = _Slot(self._slots)
                send = asyncio.create_task(self._send(batch))
                self._sends.add(send)
                send.add_done_callback(partial(self._sent, slot))
        finally:
            for send in self._sends:
                send.cancel()

    def _sent(self, slot: _Slot, send: asyncio.Task[None]) -> None:
        self._sends.discard(send)
        slot.give_back()
        if not send.cancelled() and (error := send.exception()) is not None:
            _log.error("proposals.send_failed", error=repr(error))

    def _take(self) -> list[_Proposal]:
        batch: list[_Proposal] = []
        size = 0
        while self._queue and len(batch) < MAX_COMMANDS:
            if self._queue[0].outcome.done():
                self._queue.popleft()  # its caller gave up: it must not come true long after that
                continue
            size += len(self._queue[0].envelope.payload) + 256
            if batch and size > MAX_BATCH_BYTES:
                break
            batch.append(self._queue.popleft())
        return batch

    async def _send(self, batch: list[_Proposal]) -> None:
        entry = encode_entry([proposal.envelope for proposal in batch])
        left_s = max(proposal.deadline for proposal in batch) - self._clock.monotonic_s()
        try:
            await self._log.append(entry, timeout_s=max(left_s, 0.001))
        except NoLeaderError as error:
            await asyncio.sleep(RETRY_S)
            self._retry(batch, error)
        except OutcomeUnknownError:
            # It may still commit, and then `resolve` answers; else the deadline does.
            _log.warning("proposals.outcome_unknown", commands=len(batch))
        except (EntryTooLargeError, LogError) as error:
            for proposal in batch:
                if not proposal.outcome.done():
                    proposal.outcome.set_exception(error)

    def _retry(self, batch: list[_Proposal], error: NoLeaderError) -> None:
        """Queue again what nobody wrote, but for those whose time is over."""
        now = self._clock.monotonic_s()
        waiting = [proposal for proposal in batch if not proposal.outcome.done()]
        for proposal in waiting:
            if proposal.deadline <= now:
                proposal.outcome.set_exception(error)
        self._queue.extendleft(reversed([proposal for proposal in waiting if proposal.deadline > now]))
        self._work.set()
