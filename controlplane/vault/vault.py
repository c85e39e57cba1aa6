"""The vault of one node: the data keys of the state, opened with this node's key ring.

A key is opened once and kept for as long as the state has it: what was dropped opens nothing any more, and does not
stay in memory either.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.machine.outcome import Outcome
from controlplane.machine.secrets import active_key
from controlplane.machine.state import State
from controlplane.model.commands import AddDataKey
from controlplane.model.resources import MicroVM
from controlplane.ports import Proposer, StateReader
from controlplane.ports.secrets import Sealing, VaultError
from controlplane.sealing import KeyRing, SealingError
from controlplane.vault.values import OpenDataKey, purpose_of

PROPOSE_TIMEOUT_S = 8.0


def _purpose(id: str) -> str:
    """What a data key is sealed for."""
    return f"the data key {id}"


class ClusterVault:
    """Implements `ports.secrets.Vault`."""

    def __init__(self, reader: StateReader, proposer: Proposer, ring: KeyRing) -> None:
        self._reader = reader
        self._proposer = proposer
        self._ring = ring
        self._opened: dict[str, OpenDataKey] = {}

    async def seal(self, namespace: str, name: str, values: Mapping[str, str]) -> Mapping[str, Sealing]:
        if not values:
            return {}
        key = self._active(self._reader.state)
        if key is None:
            # Whoever asks for the same meanwhile is refused, and finds the other one's key.
            await self._add(None, "secrets")
            key = self._active(await self._reader.fresh())
        if key is None:
            raise VaultError("the cluster has no data key yet")
        return _sealed(key, namespace, name, values)

    def rehearse(self, namespace: str, name: str, values: Mapping[str, str]) -> Mapping[str, Sealing]:
        return _sealed(self._active(self._reader.state) or OpenDataKey.new(), namespace, name, values)

    def open(self, vm: MicroVM) -> Mapping[str, str]:
        state, found = self._reader.state, dict[str, str]()
        for name, each in vm.sealed.items():
            purpose = purpose_of(vm.meta.namespace, vm.meta.name, name)
            key = self._key(state, each.key_id)
            found[name] = key.open(each.box, vm.spec.sensitive_metadata[name], purpose)
        return found

    def reseal(self, vm: MicroVM) -> Mapping[str, Sealing]:
        """What is not sealed with the newest data key, sealed with it. Raises VaultError."""
        key = self._active(self._reader.state)
        if key is None:
            return {}
        old = [name for name, each in vm.sealed.items() if each.key_id != key.id]
        if not old:
            return {}
        values = self.open(vm)
        return {name: key.seal(values[name], purpose_of(vm.meta.namespace, vm.meta.name, name)) for name in old}

    def forget_dropped(self) -> None:
        """Keep no key that the state has not."""
        for dropped in self._opened.keys() - self._reader.state.data_keys.keys():
            del self._opened[dropped]

    async def rotate(self, actor: str) -> Outcome:
        return await self._add(self._active(await self._reader.fresh()), actor)

    async def _add(self, before: OpenDataKey | None, actor: str) -> Outcome:
        """A data key after `before`, sealed with the first key of the ring."""
        key = OpenDataKey.new(before)
        command = AddDataKey(
            id=key.id,
            key=self._ring.seal(key.material, _purpose(key.id)),
            replaces=before.id if before is not None else None,
        )
        return await self._proposer.propose(command, actor=actor, timeout_s=PROPOSE_TIMEOUT_S)

    def _active(self, state: State) -> OpenDataKey | None:
        newest = active_key(state)
        return self._key(state, newest.id) if newest is not None else None

    def _key(self, state: State, id: str) -> OpenDataKey:
        """Raises VaultError."""
        stored = state.data_keys.get(id)
        if stored is None:
            raise VaultError(f"there is no data key {id}")
        if (known := self._opened.get(id)) is not None:
            return known
        try:
            opened = OpenDataKey.of(id, self._ring.open(stored.key, _purpose(id)))
        except SealingError as error:
            raise VaultError(str(error)) from None
        self._opened[id] = opened
        return opened


def _sealed(key: OpenDataKey, namespace: str, name: str, values: Mapping[str, str]) -> Mapping[str, Sealing]:
    return {each: key.seal(value, purpose_of(namespace, name, each)) for each, value in values.items()}
