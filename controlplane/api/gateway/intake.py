"""What an agent has told in this session, against what the state says: the difference is what must be proposed. Pure.

Level-based like everything else: a proposal that was lost, or whose outcome is unknown, leaves a difference and is made
again; an observation that says nothing new never reaches the log.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from immutables import Map

from controlplane.api.gateway.found import decode_left_behind
from controlplane.api.gateway.translate import (
    WireError,
    decode_destroyed,
    decode_observation,
    decode_unmanaged,
)
from controlplane.machine.state import State
from controlplane.model.commands import Destroyed, Report
from controlplane.model.gc import Leftover
from controlplane.model.resources import (
    Failure,
    Host,
    HostPhase,
    MicroVM,
    MicroVMPhase,
    Observation,
    OperationPhase,
    Unmanaged,
)
from controlplane.model.types import replace
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

MAX_PER_COMMAND = 500
"""Observations in one command: a thousand microVMs do not make an entry that the log refuses."""
MAX_KNOWN = 50_000
"""MicroVMs that one agent may speak of."""
_NOTHING: Map[str, None] = Map()


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
        self._complete = False
        """Whether everything on the host was told at least once."""
        self._observed: dict[str, _Told] = {}
        self._destroyed: dict[str, int] = {}
        self._unmanaged: list[Unmanaged] | None = None
        self._left_behind: list[Leftover] | None = None

    def take(self, report: wire.Report) -> None:
        """Raises WireError; then nothing was taken."""
        observed = [decode_observation(self._host, seen) for seen in report.observed]
        destroyed = [decode_destroyed(gone) for gone in report.destroyed]
        unmanaged = decode_unmanaged(report.unmanaged) if report.complete else self._unmanaged
        left_behind = decode_left_behind(report) if report.complete else self._left_behind
        if report.complete:
            self._observed, self._destroyed = {}, {}
        if len(self._observed) + len(observed) > MAX_KNOWN or len(self._destroyed) + len(destroyed) > MAX_KNOWN:
            raise WireError(f"report: more than {MAX_KNOWN} microVMs")
        self._unmanaged, self._left_behind = unmanaged, left_behind
        self._complete = self._complete or report.complete
        self._observed.update({seen.uid: _Told(seen, report.assignments_revision) for seen in observed})
        self._destroyed.update({gone.uid: gone.epoch for gone in destroyed})

    def due(self, state: State) -> Report | None:
        """The next command that brings the state to what was told; None when it says so already."""
        host = state.hosts.get(self._host)
        placed = state.on_host.get(self._host, _NOTHING)
        stale = host.stale if host is not None else {}
        self._observed = {uid: told for uid, told in self._observed.items() if uid in placed}
        self._destroyed = {uid: epoch for uid, epoch in self._destroyed.items() if uid in placed or uid in stale}
        destroyed = self._still_there(state, stale)[:MAX_PER_COMMAND]
        gone = {each.uid for each in destroyed}
        observed = [told.seen for uid, told in self._observed.items() if uid not in gone and _is_news(state, told)]
        unmanaged = self._unmanaged if _strangers_changed(host, self._unmanaged) else None
        left_behind = self._left_behind if _leftovers_changed(host, self._left_behind) else None
        # Nothing that the host was to give up is left there: it may have a lease again.
        rejoined = self._complete and host is not None and host.phase is HostPhase.REJOINING and not stale
        if not observed and not destroyed and unmanaged is None and left_behind is None and not rejoined:
            return None
        return Report(
            host=self._host,
            session=self._session,
            observed=sorted(observed, key=lambda seen: seen.uid)[:MAX_PER_COMMAND],
            destroyed=destroyed,
            unmanaged=unmanaged,
            left_behind=left_behind,
            rejoined=rejoined,
        )

    def _still_there(self, state: State, stale: Mapping[str, int]) -> list[Destroyed]:
        """Confirmations of tombstones, and of orders about copies that were given up, that the state still holds.

        After a restore a host may be ahead of such an order, with a newer copy that the state does not know. It was
        placed there only after the order had been carried out: a host takes no microVM of which it has yet to destroy a
        copy. The agent destroys nothing newer than it is told to, and would never confirm.
        """
        told = {
            uid: epoch
            for uid, epoch in self._destroyed.items()
            if stale.get(uid) == epoch or _is_tombstone(state, uid, epoch)
        }
        for found in self._unmanaged or ():
            if found.uid is not None and found.epoch is not None and found.epoch > stale.get(found.uid, found.epoch):
                told[found.uid] = stale[found.uid]
        return [Destroyed(uid=uid, epoch=epoch) for uid, epoch in sorted(told.items())]


def _is_tombstone(state: State, uid: str, epoch: int) -> bool:
    vm = state.microvms.get(uid)
    return vm is not None and vm.epoch == epoch and vm.is_tombstone


def _strangers_changed(host: Host | None, told: Sequence[Unmanaged] | None) -> bool:
    return host is not None and told is not None and [replace(each, since=0) for each in host.unmanaged] != told


def _leftovers_changed(host: Host | None, told: Sequence[Leftover] | None) -> bool:
    """How much room something takes is told with what else is new: a disk that fills up is no entry of the log."""
    if host is None or told is None:
        return False
    known = [replace(each, since=0, bytes=0) for each in host.left_behind]
    return not host.has_looked or known != [replace(each, bytes=0) for each in told]


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
