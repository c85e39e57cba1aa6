"""The replica: state that follows the log, reads that are linearizable, proposals that answer with their outcome.

It implements ports.StateReader and ports.Proposer for everything in the process. The log delivers committed entries in
order; each is applied with the same machine as on every node, its outcomes answer the proposals made here, and its
events wake watchers. The raft process holds the same state, so wherever both stand at one index their digests are
compared, and a replica that differs ends: its process starts again from the log. A linearizable read asks the log for
a read index and waits until the replica has applied it; reads that arrive while such a question is under way share the
next one. Who needs proof that this very node leads (for leases) gets it with a state that is as fresh.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import structlog

from controlplane.machine.codec import Loader, digest_text
from controlplane.machine.entry import apply_entry
from controlplane.machine.events import Event
from controlplane.machine.outcome import Outcome
from controlplane.machine.state import State
from controlplane.model.commands import Command, seal
from controlplane.model.commands.versions import MACHINE_VERSION, version_needed
from controlplane.ports import (
    Clock,
    Committed,
    Contact,
    Ids,
    Log,
    LogError,
    LogStatus,
    NoLeaderError,
    Reign,
    SnapshotInstalled,
    SnapshotInterruptedError,
    UpgradePendingError,
)
from controlplane.ports.provenance import stamp
from controlplane.replica.batcher import Batcher
from controlplane.replica.contact import ContactKeeper
from controlplane.replica.history import History, Signal
from controlplane.replica.waiters import Waiters

KEPT_EVENTS = 20_000
STATUS_PERIOD_S = 0.25
HOPELESS_S = 3.0
"""An election takes less. Whoever asks after that is better off at another node, and learns it at once."""
ALLOWED_LAG_S = 2.0
"""A replica under load is always a little behind; that is no reason to send agents away."""

_log = structlog.get_logger(__name__)


class ReplicaDivergedError(Exception):
    """The replica's state is not the one that the raft process has at the same index."""


class Replica:
    def __init__(
        self, log: Log, *, cluster_id: str, clock: Clock, ids: Ids, settle: Callable[[], None] = lambda: None
    ) -> None:
        """`settle` is called whenever a whole state was loaded."""
        self._log = log
        self._settle = settle
        self._clock = clock
        self._ids = ids
        self._state = State(cluster_id=cluster_id)
        self._index = 0
        self._term = 0
        self._history = History(KEPT_EVENTS)
        self._applied = Signal()
        self._waiters = Waiters(lambda: self._state)
        self._batcher = Batcher(log, clock)
        self._status: LogStatus | None = None
        self._contact = ContactKeeper(clock.monotonic_s())
        self._log_ends: deque[int] = deque(maxlen=round(ALLOWED_LAG_S / STATUS_PERIOD_S))
        """Where the log ended at each of the last looks, the oldest first; never empty while there is a status."""
        self._next_round: asyncio.Task[int] | None = None
        self._round_lock = asyncio.Lock()

    async def run(self) -> None:
        """Follow the log until cancelled.

        Ends with UnknownEntryError at an entry that this build cannot read, and with ReplicaDivergedError.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow())
            tasks.create_task(self._batcher.run())
            tasks.create_task(self._watch_status())

    # -- StateReader ---------------------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        return self._state

    @property
    def status(self) -> LogStatus | None:
        """The log's status a moment ago; None while the log cannot be asked."""
        return self._status

    @property
    def caught_up(self) -> bool:
        """A leader is known, and what the log held `ALLOWED_LAG_S` ago is applied."""
        led = self._contact.leads_or_follows(self._clock.monotonic_s())
        return led and self._index >= self._log_ends[0]

    @property
    def contact(self) -> Contact:
        """See `StateReader`."""
        return self._contact.read(self._index, self._clock.monotonic_s())

    @property
    def begun(self) -> bool:
        """See `StateReader`; not while the log cannot be asked."""
        status = self._status
        return status is not None and status.incarnation <= self._state.incarnation

    @property
    def is_leader(self) -> bool:
        """Whether this node led a moment ago: good enough to start work that the machine verifies."""
        status = self._status
        return status is not None and status.role == "leader" and status.has_quorum

    @property
    def reign(self) -> Reign | None:
        """In what this node leads; None when it does not."""
        status = self._status
        return Reign(status.term, status.incarnation) if status is not None and self.is_leader else None

    @property
    def leader(self) -> str | None:
        """The node that led a moment ago, as far as is known here."""
        return self._status.leader if self._status is not None else None

    async def confirm_leading(self, *, timeout_s: float) -> Reign:
        """In what this node led after the call began; `state` has everything committed until then.

        Raises NoLeaderError when it did not, or nobody could tell in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                led = await self._log.confirm_leadership(timeout_s=timeout_s)
                await self._reach(led.index)
        except TimeoutError:
            raise NoLeaderError("no quorum confirmed in time that this node leads") from None
        return led.reign

    async def fresh(self, *, timeout_s: float = 5.0) -> State:
        self._require_hope()
        try:
            async with asyncio.timeout(timeout_s):
                await self._reach(await self._shared_read_index(timeout_s))
        except TimeoutError:
            raise NoLeaderError("no quorum confirmed a leader in time") from None
        return self._state

    async def fresh_at(self, timeout_s: float) -> tuple[State, int, int]:
        """As `fresh`, with the index and the term of the last entry that the state has."""
        await self.fresh(timeout_s=timeout_s)
        return self._state, self._index, self._term

    async def until(self, condition: Callable[[State], bool], *, timeout_s: float) -> State | None:
        return await self._waiters.until(condition, timeout_s=timeout_s)

    def watch(self, after: int | None) -> AsyncIterator[Event]:
        return self._history.watch(after)

    # -- Proposer ------------------------------------------------------------------------------------------------------

    async def propose(
        self, command: Command, *, actor: str, key: str | None = None, timeout_s: float = 10.0
    ) -> Outcome:
        self._require_hope()
        if self._state.machine_version < MACHINE_VERSION:
            self._require_version(command)
        origin = stamp()
        envelope = seal(
            command,
            id=self._ids.new(),
            at=self._clock.now_ms(),
            actor=actor,
            key=key,
            trace=origin.trace if origin is not None else None,
            origin=origin,
        )
        return await self._batcher.propose(envelope, timeout_s=timeout_s)

    async def propose_each(
        self, commands: Sequence[Command], *, actor: str, timeout_s: float = 10.0
    ) -> Sequence[Outcome]:
        return await asyncio.gather(*(self.propose(command, actor=actor, timeout_s=timeout_s) for command in commands))

    def close(self, within_s: float) -> None:
        """This process ends: whoever waits for an outcome learns within `within_s` what is known of it."""
        self._batcher.close(within_s)

    def _require_hope(self) -> None:
        """Raises NoLeaderError where waiting for a leader is in vain: nothing is sent, so the refusal is certain."""
        if (lost_s := self._contact.lost_s(self._clock.monotonic_s())) > HOPELESS_S:
            raise NoLeaderError(f"there has been no leader for {lost_s:.0f} s")

    def _require_version(self, command: Command) -> None:
        """Raises UpgradePendingError where a member may not be able to read it: it would stop, or forget a part."""
        needed = version_needed(command)
        if needed > self._state.machine_version:
            known = self._status.machine_versions if self._status is not None else {}
            late = [f"{node} ({version or 'not connected'})" for node, version in known.items() if version < needed]
            raise UpgradePendingError(
                f"this needs machine version {needed}, and the cluster is at {self._state.machine_version} until every "
                f"node runs a build that knows it; still to come: {', '.join(late) or 'nobody, it takes a moment'}"
            )

    # -- inside --------------------------------------------------------------------------------------------------------

    async def _follow(self) -> None:
        async for item in self._log.follow(self._index):
            match item:
                case Committed():
                    state, outcomes, events = apply_entry(self._state, item.data, index=item.index, term=item.term)
                    self._state, self._index, self._term = state, item.index, item.term
                    for envelope_id, outcome in outcomes:
                        self._batcher.resolve(envelope_id, outcome)
                    if events:
                        self._history.add(events)
                case SnapshotInstalled():
                    try:
                        self._state = await _load(item)
                    except SnapshotInterruptedError as error:
                        _log.warning("replica.snapshot_interrupted", index=item.index, error=str(error))
                        continue
                    self._index, self._term = item.index, item.term
                    self._settle()
                    self._history.restart(self._state.revision)
                    _log.info("replica.snapshot_installed", index=item.index, revision=self._state.revision)
            self._applied.fire()
            self._waiters.changed()

    async def _reach(self, index: int) -> None:
        """Until the replica has applied it."""
        while self._index < index:
            applied = self._applied.wait()
            if self._index >= index:
                break
            await asyncio.shield(applied)

    async def _watch_status(self) -> None:
        while True:
            try:
                status = await self._log.status()
                self._compare(status)
                self._log_ends.append(status.entry_index)
                self._status = status
                self._contact.look(status, self._clock.monotonic_s())
            except LogError as error:
                if self._status is not None:
                    _log.warning("replica.log_unreachable", error=str(error))
                self._status = None
                self._contact.look(None, self._clock.monotonic_s())
                self._log_ends.clear()
            await asyncio.sleep(STATUS_PERIOD_S)

    def _compare(self, status: LogStatus) -> None:
        # Between the last entry and the index of the hash nothing changed the state.
        if self._index != status.entry_index or not status.state_hash:
            return
        own = digest_text(self._state)
        if own != status.state_hash:
            _log.critical("replica.diverged", index=self._index, digest=own, expected=status.state_hash)
            raise ReplicaDivergedError(f"at index {self._index} the digest is {own}, the log's is {status.state_hash}")

    async def _shared_read_index(self, timeout_s: float) -> int:
        """One question to the log for everyone who asked before it was sent."""
        if self._next_round is None:
            self._next_round = asyncio.create_task(self._ask_read_index(timeout_s))
            # Its readers may all have given up by the time it fails; they know already.
            self._next_round.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._next_round)

    async def _ask_read_index(self, timeout_s: float) -> int:
        async with self._round_lock:
            # From here on a newcomer needs a question of its own: this one may be answered from before its write.
            self._next_round = None
            return await self._log.read_index(timeout_s=timeout_s)


async def _load(item: SnapshotInstalled) -> State:
    """The state, built chunk by chunk as they come. Raises SnapshotInterruptedError; ValueError when it is none."""
    loader = Loader(item.header)
    async for chunk in item.chunks:
        loader.add(chunk)
    return loader.finish()
