"""Which assignments an agent has been sent, and what it must be sent next. Pure.

Everything that is placed on the host is sent, whenever any of it changed; of a spec only the first time, since it makes
up most of the bytes. The messages of one revision are cut so that none comes near the size limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from controlplane.api.gateway.translate import encode_assignment
from controlplane.model.resources import MicroVM, MicroVMPhase
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire

_MESSAGE_BYTES = 2 * 1024 * 1024
_Essence = tuple[int, int, int, int, int, bool, Mapping[str, str]]


class Outbox:
    """Of one session."""

    def __init__(self) -> None:
        self._sent: dict[str, _Essence] | None = None
        self._specs: set[tuple[str, int, int]] = set()

    def messages(self, revision: int, placed: Iterable[MicroVM]) -> list[wire.Assignments]:
        """What to send for the agent to know `placed`; empty when it does."""
        vms = list(placed)
        essence = {vm.meta.uid: _essence(vm) for vm in vms}
        if essence == self._sent:
            return []
        messages = [wire.Assignments(revision=revision)]
        specs: set[tuple[str, int, int]] = set()
        size = 0
        for vm in vms:
            key = (vm.meta.uid, vm.epoch, vm.meta.generation)
            encoded = encode_assignment(vm, with_spec=key not in self._specs)
            if size + encoded.ByteSize() > _MESSAGE_BYTES and size:
                messages.append(wire.Assignments(revision=revision))
                size = 0
            messages[-1].assignments.append(encoded)
            size += encoded.ByteSize()
            if not encoded.destroy:
                specs.add(key)
        for message in messages[:-1]:
            message.more = True
        self._sent, self._specs = essence, specs
        return messages


def _essence(vm: MicroVM) -> _Essence:
    destroy = vm.phase is MicroVMPhase.DELETING
    return (
        vm.epoch,
        vm.meta.generation,
        vm.meta.intent_revision,
        vm.repair_seq,
        vm.restart_seq,
        destroy,
        vm.meta.labels,
    )
