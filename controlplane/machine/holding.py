"""Holds: somebody's word that something is to stay, and the commands that give it and take it back.

What is held is neither collected nor deleted, by whomever, until it is released. The hold of a microVM or a host is in
its record. What a host merely reports has no record that lasts, so its holds are the host's, by key: one outlives that
nothing is told of its thing for a while.
"""

from __future__ import annotations

from collections.abc import Iterator

from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.refusals import missing
from controlplane.model.commands import Hold, HoldKind, Release
from controlplane.model.gc import Held
from controlplane.model.resources import Host, MicroVM, MicroVMPhase
from controlplane.model.types import Kind, record, replace

MAX_REASON = 1024
Result = Applied | Rejected


@record
class Holding:
    """A hold, and how what it holds is called where it is released."""

    kind: HoldKind
    name: str
    """`NAMESPACE/NAME` of a microVM, `NAME` of a host, `HOST/ID` of what was found."""
    held: Held

    @property
    def message(self) -> str:
        return (
            f"{_WORDS[self.kind]} {self.name} is held by {self.held.actor}: {self.held.reason};"
            f" `flintctl release {self.kind.value.lower()}/{self.name}` lets it go"
        )


_WORDS = {HoldKind.MICROVM: "microVM", HoldKind.HOST: "host", HoldKind.FOUND: "what was found as"}


def microvm_hold(vm: MicroVM) -> Holding | None:
    if vm.hold is None:
        return None
    return Holding(kind=HoldKind.MICROVM, name=f"{vm.meta.namespace}/{vm.meta.name}", held=vm.hold)


def host_hold(host: Host) -> Holding | None:
    """Its own, or one of what was found there, which would go with it."""
    if host.hold is not None:
        return Holding(kind=HoldKind.HOST, name=host.meta.name, held=host.hold)
    return next((_found_holding(host, key) for key in sorted(host.holds)), None)


def found_hold(host: Host, key: str) -> Holding | None:
    """Of what was found on `host`: a host that is held keeps all of that."""
    if host.hold is not None:
        return Holding(kind=HoldKind.HOST, name=host.meta.name, held=host.hold)
    return _found_holding(host, key) if key in host.holds else None


def _found_holding(host: Host, key: str) -> Holding:
    return Holding(kind=HoldKind.FOUND, name=f"{host.meta.name}/{_id_of(key)}", held=host.holds[key])


def held_refusal(holding: Holding, uid: str | None) -> Rejected:
    return Rejected(code=Code.HELD, message=holding.message, pointer="/name", uid=uid)


# -- commands ----------------------------------------------------------------------------------------------------------


def hold(draft: Draft, command: Hold) -> Result:
    if not 0 < len(command.reason) <= MAX_REASON:
        message = f"say in 1 to {MAX_REASON} characters why it is to stay"
        return Rejected(code=Code.INVALID, message=message, pointer="/reason")
    return _set(draft, command, Held(actor=draft.actor, at=draft.at, reason=command.reason))


def release(draft: Draft, command: Release) -> Result:
    return _set(draft, command, None)


def _set(draft: Draft, command: Hold | Release, held: Held | None) -> Result:
    match command.kind:
        case HoldKind.MICROVM:
            return _set_microvm(draft, command, held)
        case HoldKind.HOST:
            return _set_host(draft, command, held)
        case HoldKind.FOUND:
            return _set_found(draft, command, held)


def _set_microvm(draft: Draft, command: Hold | Release, held: Held | None) -> Result:
    vm = draft.state.microvm(str(command.namespace), command.name)
    if vm is None:
        return missing(Kind.MICROVM, f"{command.namespace}/{command.name}")
    if vm.phase is MicroVMPhase.DELETING and held is not None:
        message = f"microVM {command.namespace}/{command.name} is being deleted: it is too late to hold it"
        return Rejected(code=Code.BEING_DELETED, message=message, pointer="/name", uid=vm.meta.uid)
    if not _same(vm.hold, held):
        draft.put_microvm(replace(vm, hold=held))
    return _done(draft, Kind.MICROVM, vm.meta.uid)


def _set_host(draft: Draft, command: Hold | Release, held: Held | None) -> Result:
    host = draft.state.hosts.get(command.name)
    if host is None or not host.declared:
        return missing(Kind.HOST, command.name)
    if not _same(host.hold, held):
        draft.put_host(replace(host, hold=held))
    return _done(draft, Kind.HOST, host.meta.uid)


def _set_found(draft: Draft, command: Hold | Release, held: Held | None) -> Result:
    host = draft.state.hosts.get(str(command.host))
    if host is None:
        return missing(Kind.HOST, str(command.host))
    keys = sorted({key for key in _keys(host, held=held) if _id_of(key) == command.name})
    if not keys:
        what = "tells of nothing" if held is not None else "holds nothing"
        message = f"host {command.host} {what} that is called {command.name}"
        return Rejected(code=Code.NOT_FOUND, message=message, pointer="/name")
    if held is not None and (ordered := [key for key in keys if _is_ordered(host, key)]):
        message = f"the end of {ordered[0]} on host {command.host} is ordered: it is too late to hold it"
        return Rejected(code=Code.BEING_DELETED, message=message, pointer="/name")
    holds = {key: value for key, value in host.holds.items() if key not in keys}
    if held is not None:
        holds |= {key: known if _same(known := host.holds.get(key), held) and known else held for key in keys}
    draft.put_host(replace(host, holds=holds))
    return _done(draft, Kind.HOST, host.meta.uid)


def _keys(host: Host, *, held: Held | None) -> Iterator[str]:
    """What may be held: what is told of; what may be released: what is held."""
    if held is None:
        yield from host.holds
        return
    yield from (found.key for found in host.unmanaged)
    yield from (left.key for left in host.left_behind)


def _is_ordered(host: Host, key: str) -> bool:
    return key in host.clearing or any(found.key == key and found.uid in host.stale for found in host.unmanaged)


def _id_of(key: str) -> str:
    return key.partition("/")[2]


def _same(known: Held | None, asked: Held | None) -> bool:
    """Whether nothing new is said; who said it first stands."""
    if known is None or asked is None:
        return known is asked
    return (known.actor, known.reason) == (asked.actor, asked.reason)


def _done(draft: Draft, kind: Kind, uid: str) -> Applied:
    change = Change.CHANGED if draft.changed else Change.UNCHANGED
    revision = draft.revision if draft.changed else draft.state.revision
    return Applied(revision=revision, change=change, kind=kind, uid=uid)
