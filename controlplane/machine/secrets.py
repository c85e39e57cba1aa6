"""The commands about data keys, and which sealed values a declared microVM is to have.

Nothing here can read a secret. What is compared is digests, so a value that is declared again leaves what is stored as
it is, and one that is sealed anew changes neither the spec nor its generation.

A data key goes only when nothing is sealed with it, and nothing is taken that is sealed with a key that is not there:
so whatever the state holds can be opened, whoever led when it was proposed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from controlplane.machine.draft import Draft
from controlplane.machine.outcome import Code, Rejected
from controlplane.machine.state import State
from controlplane.machine.steps import Result, applied, stale
from controlplane.model.commands import AddDataKey, DeclareMicroVM, DropDataKey, Reseal
from controlplane.model.resources import MicroVM
from controlplane.model.secrets import DataKey, SealedValue
from controlplane.model.types import replace

MAX_DATA_KEYS = 8
"""At once: a rotation ends before many others begin."""


def active_key(state: State) -> DataKey | None:
    """The one that encrypts; None before the first secret."""
    return max(state.data_keys.values(), key=lambda each: each.number, default=None)


def add_data_key(draft: Draft, command: AddDataKey) -> Result:
    if command.id in draft.state.data_keys:
        return applied(draft, command.id)
    active = active_key(draft.state)
    if command.replaces != (active.id if active is not None else None):
        return stale(f"{active.id if active is not None else 'none'} is the data key by now")
    if len(draft.state.data_keys) >= MAX_DATA_KEYS:
        message = f"{MAX_DATA_KEYS} data keys are in use: secrets are still being sealed with the newest"
        return Rejected(code=Code.CONSTRAINT_VIOLATED, message=message)
    number = active.number + 1 if active is not None else 1
    draft.put_data_key(DataKey(id=command.id, number=number, key=command.key, actor=draft.actor, at=draft.at))
    return applied(draft, command.id)


def reseal(draft: Draft, command: Reseal) -> Result:
    """Values that have another digest by now, and microVMs that are gone, are passed over."""
    active = active_key(draft.state)
    for uid, values in sorted(command.values.items()):
        vm = draft.state.microvms.get(uid)
        if vm is None:
            continue
        sealed = dict(vm.sealed)
        for name, each in values.items():
            if active is None or each.sealed.key_id != active.id:
                return stale(f"sealed with {each.sealed.key_id}, which is not the newest data key")
            if vm.spec.sensitive_metadata.get(name) == each.digest:
                sealed[name] = each.sealed
        draft.put_microvm(replace(vm, sealed=sealed))
    return applied(draft, "")


def drop_data_key(draft: Draft, command: DropDataKey) -> Result:
    key = draft.state.data_keys.get(command.id)
    if key is None:
        return applied(draft, command.id)
    if key == active_key(draft.state):
        return stale(f"{command.id} is the newest data key")
    if (vm := next(sealed_with(draft.state, command.id), None)) is not None:
        return stale(f"secrets of microVM {vm.meta.namespace}/{vm.meta.name} are sealed with {command.id}")
    draft.drop_data_key(key)
    return applied(draft, command.id)


def sealed_with(state: State, *key_ids: str) -> Iterator[MicroVM]:
    """MicroVMs with a value under one of these data keys."""
    for vm in state.microvms.values():
        if any(each.key_id in key_ids for each in vm.sealed.values()):
            yield vm


def sealed_values(state: State, command: DeclareMicroVM, old: MicroVM | None) -> Mapping[str, SealedValue] | Rejected:
    """What the declared microVM's secrets are stored as. Those that it had already stay as they are stored."""
    wanted = command.spec.sensitive_metadata
    if stray := sorted(command.sealed.keys() - wanted.keys()):
        return _wrong(stray[0], "is sealed and has no digest")
    values: dict[str, SealedValue] = {}
    for name, digest in wanted.items():
        if name in command.spec.metadata:
            return _wrong(name, "is in metadata, too")
        if old is not None and name in old.sealed and old.spec.sensitive_metadata.get(name) == digest:
            values[name] = old.sealed[name]
        elif (given := command.sealed.get(name)) is None:
            return _wrong(name, "no value with this digest is there: give the value beside the spec")
        elif given.key_id not in state.data_keys:
            return stale(f"{name} was sealed with the data key {given.key_id}, which is gone")
        else:
            values[name] = given
    return values


def _wrong(name: str, message: str) -> Rejected:
    return Rejected(code=Code.INVALID, message=message, pointer=f"/spec/sensitive_metadata/{name}")
