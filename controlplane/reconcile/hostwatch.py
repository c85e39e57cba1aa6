"""Watches how long hosts have had no lease, on the node that leads, and says what follows (docs/adr/0100).

A tick looks at every host, proposes, and waits for nothing, so it is late only when the whole process is. What was not
watched is no evidence: the waits of all hosts begin again when this node begins to lead, in whatever term, and when a
tick came late by more than `STALLED_S`, since heartbeats may have been missed meanwhile.

Where nobody watches, nothing is granted: the end of the watch ends the counting, and the keeper needs one.

In a log that was restored or recovered nothing is granted at first, and no silence counts: the watch waits until every
lease of the lost history has ended, and proposes that the incarnation begins (docs/adr/0103). The waits of hosts begin
again then, so that those which dial in are not given up.

A host that is to be detached is written into the ledger before that is proposed, so that it gets no lease whatever
becomes of the proposal. A proposal whose outcome is unknown is made again while the state still asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

import structlog

from controlplane.machine.outcome import Rejected
from controlplane.model.commands import (
    AgentLost,
    BeginIncarnation,
    HostDetached,
    HostFenced,
    HostHeard,
    HostSuspected,
)
from controlplane.model.resources import Host, HostPhase
from controlplane.ports import Clock, LogError, Proposer, Reign, StateReader
from controlplane.reconcile.ledger import Ledger
from controlplane.settings import LeaseSettings

ACTOR = "hostwatch"
PERIOD_S = 0.5
STALLED_S = 1.0
PROPOSE_TIMEOUT_S = 5.0

Finding = AgentLost | HostSuspected | HostHeard | HostDetached | HostFenced
Proposal = Finding | BeginIncarnation

_log = structlog.get_logger(__name__)


def find(hosts: Iterable[Host], ledger: Ledger, now_s: float, lease: LeaseSettings) -> Iterator[Finding]:
    """What is to be proposed in the ledger's term, of `hosts` that it has looked at."""
    for host in hosts:
        finding = _find(host, ledger, now_s, lease)
        if finding is not None:
            yield finding


def _find(host: Host, ledger: Ledger, now_s: float, lease: LeaseSettings) -> Finding | None:
    name, session, term = host.meta.name, host.session, ledger.term
    assert term is not None
    silent_s = ledger.silent_s(host, now_s)
    # Both what may be granted here and what may be out from before.
    ttl_s = max(lease.ttl_s, host.lease_ttl_ms / 1000)
    match host.phase:
        case HostPhase.READY | HostPhase.SUSPECT | HostPhase.REJOINING if silent_s > lease.ended_after_s(ttl_s):
            return HostDetached(host=name, session=session, term=term, reason=f"not heard for {silent_s:.0f} s")
        case HostPhase.READY if session is not None and silent_s > lease.suspect_s:
            return HostSuspected(host=name, session=session, reason=f"not heard for {silent_s:.0f} s")
        case HostPhase.SUSPECT if session is not None and ledger.granted_lately(name, now_s, lease.suspect_s):
            return HostHeard(host=name, session=session)
        case HostPhase.DETACHED if (waited_s := ledger.ungranted_s(name, now_s)) >= lease.fenced_after_s(ttl_s):
            reason = f"no lease was granted for {waited_s:.0f} s, and one of {ttl_s:g} s has ended by any clock"
            return HostFenced(host=name, term=term, reason=reason, since=host.since)
        case HostPhase.PENDING if session is not None and silent_s > lease.ended_after_s(ttl_s):
            return AgentLost(host=name, session=session, reason=f"not heard for {silent_s:.0f} s")
        case _:
            return None


def waits_s(hosts: Iterable[Host], ledger: Ledger, now_s: float, lease: LeaseSettings) -> float:
    """How long until every lease of a lost history, and what ran under it, has ended.

    The longest of them is the longest that is known: agents tell what they hold when they dial in.
    """
    longest_s = max([lease.ttl_s, *(host.lease_ttl_ms / 1000 for host in hosts)])
    return lease.gone_after_s(longest_s) - ledger.counted_s(now_s)


def begin(
    hosts: Iterable[Host], ledger: Ledger, now_s: float, lease: LeaseSettings, reign: Reign
) -> Iterator[Proposal]:
    """The beginning of the log's incarnation, once every lease of the lost history and what ran under it has ended."""
    if waits_s(hosts, ledger, now_s, lease) <= 0:
        yield BeginIncarnation(incarnation=reign.incarnation, term=reign.term)


def _subject(proposal: Proposal) -> str:
    return f"incarnation {proposal.incarnation}" if isinstance(proposal, BeginIncarnation) else proposal.host


class HostWatch:
    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        clock: Clock,
        ledger: Ledger,
        *,
        reign: Callable[[], Reign | None],
        lease: LeaseSettings,
    ) -> None:
        """`reign` gives in what this node leads, or None."""
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._ledger = ledger
        self._reign = reign
        self._lease = lease
        self._ticked_s: float | None = None
        self._begun: int | None = None
        """The incarnation that had begun when it was looked at last."""
        self._proposed: set[str] = set()
        """Hosts, and what else proposals under way are about."""

    @property
    def waits_s(self) -> float | None:
        """How long this leader of a restored log waits for the leases of the lost history; None when it does not."""
        reign, state, now_s = self._reign(), self._reader.state, self._clock.monotonic_s()
        if reign is None or reign.incarnation <= state.incarnation:
            return None
        if reign.term != self._ledger.term:
            now_s = self._ledger.since_s  # the counting is about to begin
        return max(waits_s(state.hosts.values(), self._ledger, now_s, self._lease), 0.0)

    async def run(self) -> None:
        """Until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    for finding in self._findings():
                        tasks.create_task(self.propose(finding))
                    await asyncio.sleep(PERIOD_S)
        finally:
            self._ledger.begin(None, self._clock.monotonic_s())

    def _findings(self) -> list[Proposal]:
        try:
            return self.tick()
        except Exception:
            # The front's other parts must not end with this one; the next tick looks afresh.
            _log.exception("hostwatch.tick_broke")
            return []

    def tick(self) -> list[Proposal]:
        """What is to be proposed now. Those that are to be detached are granted nothing from now on."""
        now_s, reign = self._clock.monotonic_s(), self._reign()
        term = reign.term if reign is not None else None
        late_s = now_s - self._ticked_s - PERIOD_S if self._ticked_s is not None else 0.0
        self._ticked_s = now_s
        if term != self._ledger.term:
            self._ledger.begin(term, now_s)
        elif term is not None and late_s > STALLED_S:
            _log.warning("hostwatch.stalled", late_s=round(late_s, 1))
            self._ledger.restart(now_s)
        if reign is None:
            return []
        state = self._reader.state
        if state.incarnation != self._begun:
            self._begun = state.incarnation
            self._ledger.restart(now_s)
            if reign.incarnation > state.incarnation:
                _log.warning("hostwatch.waits_for_a_lost_history", incarnation=reign.incarnation)
        hosts = [host for _, host in sorted(state.hosts.items())]
        self._ledger.look(hosts, now_s)
        if reign.incarnation > state.incarnation:
            found: Iterator[Proposal] = begin(hosts, self._ledger, now_s, self._lease, reign)
        else:
            found = find(hosts, self._ledger, now_s, self._lease)
        proposals = [each for each in found if _subject(each) not in self._proposed]
        for each in proposals:
            self._proposed.add(_subject(each))
            if isinstance(each, HostDetached):
                self._ledger.detach(each.host, each.session)
        return proposals

    async def propose(self, finding: Proposal) -> None:
        what, subject = type(finding).__name__, _subject(finding)
        try:
            outcome = await self._proposer.propose(finding, actor=ACTOR, timeout_s=PROPOSE_TIMEOUT_S)
        except LogError as error:
            _log.warning("hostwatch.not_committed", subject=subject, finding=what, error=str(error))
        except Exception:
            _log.exception("hostwatch.proposal_broke", subject=subject, finding=what)
        else:
            if isinstance(outcome, Rejected):
                _log.info("hostwatch.conflict", subject=subject, finding=what, reason=outcome.message)
            else:
                _log.warning("hostwatch.committed", subject=subject, finding=what)
        finally:
            self._proposed.discard(subject)
