"""The vault over the real machine: values in and out, keys that a node lacks, and rotations that change hands."""

from __future__ import annotations

import asyncio
import dataclasses
from contextlib import suppress

import pytest
from support.builders import declare_microvm, declare_namespace
from support.harness import Replica

from controlplane.model.commands import AddDataKey, DropDataKey, Reseal
from controlplane.model.resources import MicroVM
from controlplane.model.types import replace
from controlplane.ports import OutcomeUnknownError
from controlplane.ports.secrets import VaultError
from controlplane.sealing import KeyRing, SealingKey
from controlplane.vault.resealing import PER_STEP, Resealer
from controlplane.vault.values import OpenDataKey
from controlplane.vault.vault import ClusterVault

SECRET = "hunter2"
RING = KeyRing.new()


class Node:
    """A node's vault and the resealer that it runs when it leads."""

    def __init__(self, replica: Replica, ring: KeyRing = RING) -> None:
        self.replica = replica
        self.vault = ClusterVault(replica, replica, ring)
        self.resealer = Resealer(replica, replica, self.vault, lambda: True)

    async def declare(self, name: str, value: str) -> MicroVM:
        sealings = await self.vault.seal("demo", name, {"user-data": value})
        declared = declare_microvm(name, sensitive_metadata={key: each.digest for key, each in sealings.items()})
        await self.replica.accept(replace(declared, sealed={key: each.sealed for key, each in sealings.items()}))
        return self.vm(name)

    def vm(self, name: str) -> MicroVM:
        found = self.replica.state.microvm("demo", name)
        assert found is not None
        return found

    async def step(self) -> bool:
        return await self.resealer._step(self.replica.state)

    @property
    def keys(self) -> set[str]:
        return set(self.replica.state.data_keys)


@pytest.fixture
async def node() -> Node:
    replica = Replica()
    await replica.accept(declare_namespace())
    return Node(replica)


async def test_what_is_sealed_opens_at_every_node_with_the_ring(node: Node) -> None:
    vm = await node.declare("web", SECRET)
    assert Node(node.replica).vault.open(vm) == {"user-data": SECRET}
    assert len(node.keys) == 1
    assert SECRET not in repr(node.replica.commands)


async def test_digests_tell_equal_values_of_one_thing_and_of_nothing_else(node: Node) -> None:
    async def digest(name: str, key: str, value: str) -> str:
        return (await node.vault.seal("demo", name, {key: value}))[key].digest

    first = await digest("web", "user-data", SECRET)
    assert first == await digest("web", "user-data", SECRET)
    others = {
        await digest("web", "user-data", "other"),
        await digest("db", "user-data", SECRET),
        await digest("web", "meta-data", SECRET),
    }
    assert len(others) == 3
    assert first not in others


async def test_a_node_without_the_ring_names_the_key_that_it_lacks(node: Node) -> None:
    vm = await node.declare("web", SECRET)
    stranger = Node(node.replica, KeyRing.new())
    with pytest.raises(VaultError, match="which this node's key ring lacks"):
        stranger.vault.open(vm)
    with pytest.raises(VaultError, match="lacks"):
        await stranger.vault.seal("demo", "web", {"user-data": SECRET})


async def test_a_value_opens_in_its_own_place_alone(node: Node) -> None:
    vm, other = await node.declare("web", SECRET), await node.declare("db", SECRET)
    with pytest.raises(VaultError, match="demo/web user-data does not open"):
        node.vault.open(replace(vm, sealed=other.sealed))
    forged = dataclasses.replace(vm.spec, sensitive_metadata={"user-data": "hmac-sha256:" + "0" * 64})
    with pytest.raises(VaultError, match="it was changed"):
        node.vault.open(replace(vm, spec=forged))


async def test_a_rotation_seals_everything_anew_and_drops_the_old_key(node: Node) -> None:
    before = [await node.declare(f"vm-{number}", f"{SECRET}-{number}") for number in range(PER_STEP + 1)]
    old = node.keys
    await node.vault.rotate("alice")
    assert len(node.keys) == 2
    steps = 0
    while await node.step():
        steps += 1
    assert steps == 3, "two of microVMs, one that drops the key"
    assert len(node.keys) == 1
    assert node.keys.isdisjoint(old)
    for number, was in enumerate(before):
        now = node.vm(was.meta.name)
        assert now.sealed != was.sealed
        assert (now.spec, now.meta.generation) == (was.spec, was.meta.generation)
        assert node.vault.open(now) == {"user-data": f"{SECRET}-{number}"}


async def test_a_secret_is_the_same_one_after_a_rotation(node: Node) -> None:
    was = await node.declare("web", SECRET)
    await node.vault.rotate("alice")
    assert (await node.declare("web", SECRET)).meta.generation == was.meta.generation


async def test_no_node_keeps_a_key_that_was_dropped(node: Node) -> None:
    was = await node.declare("web", SECRET)
    follower = Node(node.replica)
    assert follower.vault.open(was) == {"user-data": SECRET}
    await node.vault.rotate("alice")
    while await node.step():
        pass
    assert len(node.keys) == 1
    with pytest.raises(VaultError, match="there is no data key"):
        follower.vault.open(was)
    running = asyncio.create_task(follower.resealer.run())
    await asyncio.sleep(0)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert follower.vault._opened == {}


async def test_a_rehearsal_makes_no_data_key(node: Node) -> None:
    rehearsed = node.vault.rehearse("demo", "web", {"user-data": SECRET})
    assert not node.keys
    assert SECRET not in repr(rehearsed)
    await node.declare("web", SECRET)
    assert {each.sealed.key_id for each in node.vault.rehearse("demo", "web", {"a": "b"}).values()} == node.keys


@pytest.mark.parametrize("interrupted_after", range(4))
async def test_another_leader_goes_on_where_one_stopped(node: Node, interrupted_after: int) -> None:
    """After none, one, two and all of its steps; of the last of them the old leader does not even learn."""
    for number in range(PER_STEP + 1):
        await node.declare(f"vm-{number}", SECRET)
    await node.vault.rotate("alice")
    for _ in range(interrupted_after):
        node.replica.lose_outcomes = 1
        with suppress(OutcomeUnknownError):
            await node.step()
    node.replica.lose_outcomes = 0
    successor = Node(node.replica)
    while await successor.step():
        pass
    assert len(node.keys) == 1
    assert all(successor.vault.open(vm) == {"user-data": SECRET} for vm in node.replica.state.microvms.values())
    done = [command for command in node.replica.commands if isinstance(command, Reseal | DropDataKey)]
    assert len(done) == 3, "nothing was done twice"


async def test_the_first_key_of_the_ring_seals_the_next_data_key(node: Node) -> None:
    await node.declare("web", SECRET)
    newer = SealingKey("newer", b"n" * 32)
    turned = Node(node.replica, KeyRing((newer, *RING._keys)))
    await turned.vault.rotate("alice")
    while await turned.step():
        pass
    (left,) = node.replica.state.data_keys.values()
    assert left.key.key_id == "newer"
    assert Node(node.replica, KeyRing((newer,))).vault.open(node.vm("web")) == {"user-data": SECRET}


async def test_two_nodes_that_need_the_first_key_end_with_one(node: Node) -> None:
    other, stale = Node(node.replica), node.replica.state
    await node.vault.seal("demo", "web", {"user-data": SECRET})
    key = OpenDataKey.new()
    await node.replica.propose(AddDataKey(id=key.id, key=RING.seal(key.material, "x"), replaces=None), actor="n2")
    assert len(node.keys) == 1
    assert not stale.data_keys
    assert await other.vault.seal("demo", "web", {}) == {}
