"""What an agent has told in this session, against what the state says: the difference is what must be proposed. Pure.

Level-based like everything else: a proposal that was lost, or whose outcome is unknown, leaves a difference and is made
again; an observation that says nothing new never reaches the log.
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane.api.gateway.translate import WireError, decode_destroyed, decode_observation, decode_unmanaged
from controlplane.machine.state import State
from controlplane.model.commands import Destroyed, Report
from controlplane.model.resources import Failure, MicroVM, MicroVMPhase, Observation, OperationPhase, Unmanaged
from controlplane.model.types import replace
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

MAX_PER_COMMAND = 500
"""Observations in one command: a thousand microVMs do not make an entry that the log refuses."""
MAX_KNOWN = 50_000
"""MicroVMs that one agent may speak of."""


@dataclass(frozen=True, slots=True)
class _Told:
    seen: Observation
    revision: int
    """Of the assignments that the agent had when it looked."""


class Intake:
    """Of one session."""

    def __init__(self, host: str, session: str) -> None:
        self._host = host
        self._session = session
        self._observed: dict[str, _Told] = {}
        self._destroyed: dict[str, int] = {}
        self._unmanaged: list[Unmanaged] | None = None

    def take(self, report: wire.Report) -> None:
        """Raises WireError; then nothing was taken."""
        observed = [decode_observation(self._host, seen) for seen in report.observed]
        destroyed = [decode_destroyed(gone) for gone in report.destroyed]
        unmanaged = decode_unmanaged(report.unmanaged) if report.complete else self._unmanaged
        if report.complete:
            self._observed, self._destroyed = {}, {}
        if len(self._observed) + len(observed) > MAX_KNOWN or len(self._destroyed) + len(destroyed) > MAX_KNOWN:
            raise WireError(f"report: more than {MAX_KNOWN} microVMs")
        self._unmanaged = unmanaged
        self._observed.update({seen.uid: _Told(seen, report.assignments_revision) for seen in observed})
        self._destroyed.update({gone.uid: gone.epoch for gone in destroyed})

    def due(self, state: State) -> Report | None:
        """The next command that brings the state to what was told; None when it says so already."""
        placed = state.on_host.get(self._host)
        if placed is None:
            self._observed, self._destroyed = {}, {}
        else:
            self._observed = {uid: told for uid, told in self._observed.items() if uid in placed}
            self._destroyed = {uid: epoch for uid, epoch in self._destroyed.items() if uid in placed}
        destroyed = self._still_there(state)[:MAX_PER_COMMAND]
        gone = {each.uid for each in destroyed}
        observed = [told.seen for uid, told in self._observed.items() if uid not in gone and _is_news(state, told)]
        unmanaged = self._unmanaged if self._strangers_changed(state) else None
        if not observed and not destroyed and unmanaged is None:
            return None
        return Report(
            host=self._host,
            session=self._session,
            observed=sorted(observed, key=lambda seen: seen.uid)[:MAX_PER_COMMAND],
            destroyed=destroyed,
            unmanaged=unmanaged,
        )

    def _still_there(self, state: State) -> list[Destroyed]:
        """Confirmations of tombstones that the state still holds."""
        return [
            Destroyed(uid=uid, epoch=epoch)
            for uid, epoch in sorted(self._destroyed.items())
            if (vm := state.microvms.get(uid)) is not None and vm.epoch == epoch and vm.phase is MicroVMPhase.DELETING
        ]

    def _strangers_changed(self, state: State) -> bool:
        host = state.hosts.get(self._host)
        if host is None or self._unmanaged is None:
            return False
        return [replace(each, since=0) for each in host.unmanaged] != self._unmanaged


def _is_news(state: State, told: _Told) -> bool:
    seen = told.seen
    vm = state.microvms.get(seen.uid)
    if vm is None or vm.epoch != seen.epoch or vm.placement is None or vm.placement.host != seen.host:
        return False
    if seen.failure is not None and told.revision < vm.meta.intent_revision:
        return False  # it failed at what is no longer asked for
    if vm.observed is None or replace(seen, at=vm.observed.at) != vm.observed:
        return True
    return seen.failure is not None and _means_more(state, vm, seen.failure)


def _means_more(state: State, vm: MicroVM, failure: Failure) -> bool:
    """The same failure as before, and the state does not know yet that the present intent met it too."""
    if failure.permanent and vm.phase in (MicroVMPhase.PLACED, MicroVMPhase.ACTIVE):
        return True
    operation = state.operations.get(vm.operation) if vm.operation is not None else None
    return (
        operation is not None
        and operation.phase is OperationPhase.RUNNING
        and not operation.message.startswith(failure.message)
    )
