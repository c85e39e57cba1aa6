"""Which assignments an agent has been sent, and what it must be sent next. Pure.

Secrets are opened here, for the agent of the host that is to run what they belong to, and travel with its spec.

Everything that is placed on the host is sent, and every order to destroy what was given up there, whenever any of it
changed; of a spec only the first time, since it makes up most of the bytes. The messages of one revision are cut so
that none comes near the size limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

from controlplane.api.gateway.translate import NOTHING, encode_assignment, encode_order
from controlplane.model.gc import Deletion
from controlplane.model.resources import MicroVM
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

_MESSAGE_BYTES = 2 * 1024 * 1024
_Essence = tuple[int, int, int, int, int, bool, bool, Mapping[str, str]]


class Outbox:
    """Of one session."""

    def __init__(self, opened: Callable[[MicroVM], Mapping[str, str]]) -> None:
        """`opened` gives a microVM's secrets."""
        self._opened = opened
        self._sent: dict[str, _Essence] | None = None
        self._specs: set[tuple[str, int, int]] = set()
        self._clearings: list[wire.Clearing] = []

    def messages(
        self,
        revision: int,
        placed: Iterable[MicroVM],
        stale: Mapping[str, int] = MappingProxyType({}),
        orders: Mapping[str, Deletion] = MappingProxyType({}),
        clearings: Sequence[wire.Clearing] = (),
    ) -> list[wire.Assignments]:
        """What to send for the agent to know `placed`, and that it is to destroy what `stale` gives the epochs of by
        uid, and `orders` the reasons, and to delete what `clearings` name; empty when it does. Raises what opening
        secrets does.
        """
        vms = list(placed)
        essence = {uid: _order(epoch) for uid, epoch in stale.items()}
        essence |= {vm.meta.uid: _essence(vm) for vm in vms}
        if essence == self._sent and list(clearings) == self._clearings:
            return []
        known = self._specs
        encoded = [self._encode(vm, with_spec=_spec_key(vm) not in known) for vm in vms]
        encoded += [encode_order(uid, epoch, orders.get(uid)) for uid, epoch in sorted(stale.items())]
        self._sent, self._clearings = essence, list(clearings)
        self._specs = {_spec_key(vm) for vm in vms if not vm.is_tombstone}
        messages = _cut(revision, encoded)
        # A host is told of no more than it named itself: they are few.
        messages[0].clearings.extend(self._clearings)
        return messages

    def _encode(self, vm: MicroVM, *, with_spec: bool) -> wire.Assignment:
        needed = with_spec and vm.sealed and not vm.is_tombstone
        return encode_assignment(vm, with_spec=with_spec, sensitive=self._opened(vm) if needed else NOTHING)


def _cut(revision: int, assignments: Iterable[wire.Assignment]) -> list[wire.Assignments]:
    messages = [wire.Assignments(revision=revision, governs_leftovers=True)]
    size = 0
    for assignment in assignments:
        if size + assignment.ByteSize() > _MESSAGE_BYTES and size:
            messages.append(wire.Assignments(revision=revision))
            size = 0
        messages[-1].assignments.append(assignment)
        size += assignment.ByteSize()
    for message in messages[:-1]:
        message.more = True
    return messages


def _spec_key(vm: MicroVM) -> tuple[str, int, int]:
    return vm.meta.uid, vm.epoch, vm.meta.generation


def _order(epoch: int) -> _Essence:
    return epoch, 0, 0, 0, 0, True, False, {}


def _essence(vm: MicroVM) -> _Essence:
    return (
        vm.epoch,
        vm.meta.generation,
        vm.meta.intent_revision,
        vm.repair_seq,
        vm.restart_seq,
        vm.is_tombstone,
        vm.is_halted,
        vm.meta.labels,
    )
