"""Watches how long hosts have had no lease, on the node that leads, and says what follows (docs/adr/0100).

A tick looks at every host, proposes, and waits for nothing, so it is late only when the whole process is. What was not
watched is no evidence: the waits of all hosts begin again when this node begins to lead, in whatever term, and when a
tick came late by more than `STALLED_S`, since heartbeats may have been missed meanwhile.

Where nobody watches, nothing is granted: the end of the watch ends the counting, and the keeper needs one.

A host that is to be detached is written into the ledger before that is proposed, so that it gets no lease whatever
becomes of the proposal. A proposal whose outcome is unknown is made again while the state still asks for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

import structlog

from controlplane.machine.outcome import Rejected
from controlplane.model.commands import AgentLost, HostDetached, HostFenced, HostHeard, HostSuspected
from controlplane.model.resources import Host, HostPhase
from controlplane.ports import Clock, LogError, Proposer, StateReader
from controlplane.reconcile.ledger import Ledger
from controlplane.settings import LeaseSettings

ACTOR = "hostwatch"
PERIOD_S = 0.5
STALLED_S = 1.0
PROPOSE_TIMEOUT_S = 5.0

Finding = AgentLost | HostSuspected | HostHeard | HostDetached | HostFenced

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


class HostWatch:
    def __init__(
        self,
        reader: StateReader,
        proposer: Proposer,
        clock: Clock,
        ledger: Ledger,
        *,
        leading_term: Callable[[], int | None],
        lease: LeaseSettings,
    ) -> None:
        """`leading_term` gives the term in which this node leads, or None."""
        self._reader = reader
        self._proposer = proposer
        self._clock = clock
        self._ledger = ledger
        self._leading_term = leading_term
        self._lease = lease
        self._ticked_s: float | None = None
        self._proposed: set[str] = set()
        """Hosts of which a proposal is under way."""

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

    def _findings(self) -> list[Finding]:
        try:
            return self.tick()
        except Exception:
            # The front's other parts must not end with this one; the next tick looks afresh.
            _log.exception("hostwatch.tick_broke")
            return []

    def tick(self) -> list[Finding]:
        """What is to be proposed now. Those that are to be detached are granted nothing from now on."""
        now_s, term = self._clock.monotonic_s(), self._leading_term()
        late_s = now_s - self._ticked_s - PERIOD_S if self._ticked_s is not None else 0.0
        self._ticked_s = now_s
        if term != self._ledger.term:
            self._ledger.begin(term, now_s)
        elif term is not None and late_s > STALLED_S:
            _log.warning("hostwatch.stalled", late_s=round(late_s, 1))
            self._ledger.restart(now_s)
        if term is None:
            return []
        hosts = [host for _, host in sorted(self._reader.state.hosts.items())]
        self._ledger.look(hosts, now_s)
        findings = [
            finding for finding in find(hosts, self._ledger, now_s, self._lease) if finding.host not in self._proposed
        ]
        for finding in findings:
            self._proposed.add(finding.host)
            if isinstance(finding, HostDetached):
                self._ledger.detach(finding.host, finding.session)
        return findings

    async def propose(self, finding: Finding) -> None:
        what = type(finding).__name__
        try:
            outcome = await self._proposer.propose(finding, actor=ACTOR, timeout_s=PROPOSE_TIMEOUT_S)
        except LogError as error:
            _log.warning("hostwatch.not_committed", host=finding.host, finding=what, error=str(error))
        except Exception:
            _log.exception("hostwatch.proposal_broke", host=finding.host, finding=what)
        else:
            if isinstance(outcome, Rejected):
                _log.info("hostwatch.conflict", host=finding.host, finding=what, reason=outcome.message)
            else:
                _log.warning("hostwatch.committed", host=finding.host, finding=what)
        finally:
            self._proposed.discard(finding.host)
