"""What handlers share: their answers, and moving a microVM along its lifecycle."""

from __future__ import annotations

from controlplane.machine.draft import Draft
from controlplane.machine.lifecycle import MICROVM, MicroVMEvent
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.model.gc import Deletion
from controlplane.model.resources import Amount, Host, MicroVM
from controlplane.model.spec import OnDetach
from controlplane.model.types import replace

Result = Applied | Rejected


def move(draft: Draft, vm: MicroVM, event: MicroVMEvent) -> MicroVM:
    """`vm` in the phase that `event` leads to; only for events that the table has for every phase it can be in."""
    phase = MICROVM[vm.phase, event]
    assert phase is not None
    return vm if phase is vm.phase else replace(vm, phase=phase, since=draft.at)


def order_end(host: Host, uid: str, epoch: int, why: Deletion) -> Host:
    """`host` with the order to destroy what it has of `uid` up to `epoch`, which lives until it confirms."""
    return replace(host, stale={**host.stale, uid: epoch}, orders={**host.orders, uid: why})


def order_clearing(host: Host, key: str, why: Deletion) -> Host:
    """`host` with the order to delete what it has left behind as `key`, which lives until it tells of that no more."""
    return replace(host, clearing={**host.clearing, key: why})


def without_host(draft: Draft, vm: MicroVM, event: MicroVMEvent) -> MicroVM:
    """`vm` as `event` lets it wait for its next host, without anything that belonged to the last one."""
    return replace(
        move(draft, vm, event),
        placement=None,
        observed=None,
        drifted_since=None,
        held=Amount(),
        detach=OnDetach.KEEP,
        stay=None,
    )


def applied(draft: Draft, uid: str) -> Applied:
    change = Change.CHANGED if draft.changed else Change.UNCHANGED
    revision = draft.revision if draft.changed else draft.state.revision
    return Applied(revision=revision, change=change, uid=uid)


def other_term(decided: int, term: int) -> Rejected | None:
    """Why what a leader of the term `decided` said counts no more in `term`, if it does not."""
    if decided == term:
        return None
    return stale(f"decided in term {decided}, and this is term {term}: its leader knows nothing of those leases")


def stale(message: str) -> Rejected:
    return Rejected(code=Code.STALE, message=message)
