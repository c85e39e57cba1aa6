"""A data directory from a snapshot: a node starts from it, and nothing else is ever left to start from."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import pytest
from support.builders import declare_namespace
from unit.consensus.support import until

from controlplane.consensus import RaftNode, RaftSettings
from controlplane.consensus.configuration import Configuration, decode, encode
from controlplane.consensus.errors import CorruptDataError
from controlplane.consensus.restore import RestoreError, plan_restore, restore
from controlplane.machine.codec import View
from controlplane.machine.entry import MachineState, apply_entry
from controlplane.machine.state import State
from controlplane.manifest import FORMAT, Manifest, chunk_ref
from controlplane.model.commands import encode_entry, seal
from controlplane.ports import Member

INDEX, TERM = 42, 7


def state_of(count: int) -> State:
    state = State(cluster_id="test")
    for number in range(count):
        command = declare_namespace(f"ns-{number}")
        entry = encode_entry([seal(command, id=f"{number:026d}", at=1, actor="t")])
        state, _, _ = apply_entry(state, entry, index=number + 1, term=1)
    return state


def snapshot_of(state: State, *, index: int = INDEX, incarnation: int = 3) -> tuple[Manifest, list[bytes]]:
    view = View(state)
    chunks = [(part.key, data) for part in view.parts() for data in part.encode()]
    refs = tuple(chunk_ref(key, data) for key, data in chunks)
    old = encode(Configuration(incarnation, (Member("gone", "h:1", "voter"),), ("retired",)))
    size = sum(ref.size for ref in refs)
    manifest = Manifest(FORMAT, "test", incarnation, index, TERM, index, old, view.header(), refs, size)
    return manifest, [data for _, data in chunks]


async def has_state(replicated: MachineState, digest: int) -> None:
    async def same() -> bool:
        return replicated.state.digest == digest

    await until(same, "everything is applied again")


def settings(path: Path, **changes: object) -> RaftSettings:
    made = RaftSettings(node="n1", cluster_id="test", data_dir=path / "data" / "raft", plaintext_peers_for_tests=True)
    return dataclasses.replace(made, **changes)


@pytest.mark.parametrize("count", [0, 1, 300])
async def test_a_node_starts_from_it(tmp_path: Path, count: int) -> None:
    state = state_of(count)
    manifest, chunks = snapshot_of(state)
    configuration = restore(settings(tmp_path), manifest, chunks, MachineState("test"))
    assert (configuration.incarnation, [m.node for m in configuration.members]) == (4, ["n1"])
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["raft"]
    for turn in range(2):
        replicated = MachineState("test")
        node = RaftNode(settings(tmp_path), replicated)
        await node.start()
        try:
            await node.read_index(timeout_s=5)
            await has_state(replicated, state.digest)
            status = await node.status()
            assert (status.incarnation, [m.node for m in status.members]) == (4, ["n1"])
            assert status.snapshot_index >= INDEX
            entry = encode_entry([seal(declare_namespace(f"new-{turn}"), id=f"Z{turn:025d}", at=1, actor="t")])
            position = await node.append(entry, timeout_s=5)
            assert position.index > INDEX
            assert position.term > TERM
        finally:
            await node.stop()
        state = replicated.state
    assert f"new-{turn}" in state.namespaces


async def test_of_a_cluster_without_a_single_entry(tmp_path: Path) -> None:
    manifest, chunks = snapshot_of(state_of(0), index=0)
    restore(settings(tmp_path), msgspec.structs.replace(manifest, term=0), chunks, MachineState("test"))
    node = RaftNode(settings(tmp_path), MachineState("test"))
    await node.start()
    assert (await node.status()).incarnation == 4
    await node.stop()


def test_members_are_those_of_the_settings(tmp_path: Path) -> None:
    manifest, chunks = snapshot_of(state_of(1))
    peers = {"n2": "127.0.0.1:7102", "n3": "127.0.0.1:7103"}
    node = settings(tmp_path, peers=peers, listen="127.0.0.1:7101", advertise="localhost:7101")
    configuration = restore(node, manifest, chunks, MachineState("test"), incarnation=9)
    assert configuration.incarnation == 9
    assert {m.node: m.address for m in configuration.members} == {"n1": "localhost:7101", **peers}
    assert configuration.voters == {"n1", "n2", "n3"}
    assert decode(encode(configuration)) == configuration


@pytest.mark.parametrize(
    ("changes", "incarnation", "said"),
    [
        ({"cluster_id": "other"}, None, "the snapshot is of cluster 'test', the settings say 'other'"),
        ({"join": True, "peers": {"n2": "127.0.0.1:1"}, "listen": "127.0.0.1:2"}, None, "raft.join"),
        ({}, 3, "incarnation: must be at least 4"),
        ({}, (1 << 32) + 1, "incarnation: must be at most 4294967296"),
    ],
)
def test_what_is_refused(tmp_path: Path, changes: dict[str, object], incarnation: int | None, said: str) -> None:
    manifest, chunks = snapshot_of(state_of(1))
    node = settings(tmp_path, **changes)
    for attempt in (
        lambda: plan_restore(node, manifest, incarnation),
        lambda: restore(node, manifest, chunks, MachineState(node.cluster_id), incarnation=incarnation),
    ):
        with pytest.raises(RestoreError) as caught:
            attempt()
        assert said in str(caught.value)
    assert not node.data_dir.exists()


def test_a_log_is_never_overwritten(tmp_path: Path) -> None:
    manifest, chunks = snapshot_of(state_of(1))
    node = settings(tmp_path)
    restore(node, manifest, chunks, MachineState("test"))
    before = sorted(path.name for path in node.data_dir.rglob("*"))
    with pytest.raises(RestoreError, match=r"is not empty.*move it away first"):
        restore(node, manifest, chunks, MachineState("test"))
    assert sorted(path.name for path in node.data_dir.rglob("*")) == before


@pytest.mark.parametrize("fault", ["missing", "altered", "breaks", "another state"])
def test_what_is_not_whole_leaves_nothing(tmp_path: Path, fault: str) -> None:
    manifest, chunks = snapshot_of(state_of(50))
    given = list(chunks)
    if fault == "missing":
        given = given[:-1]
    if fault == "altered":
        given[-1] = given[-1][:-1] + b"?"
    if fault == "another state":
        other, given = snapshot_of(state_of(49))
        manifest = msgspec.structs.replace(manifest, chunks=other.chunks, size=other.size)

    def source():
        yield from given[:-1]
        if fault == "breaks":
            raise ConnectionError
        yield from given[-1:]

    errors = {"altered": RestoreError, "breaks": ConnectionError, "another state": CorruptDataError}
    with pytest.raises(errors.get(fault, ValueError)):
        restore(settings(tmp_path), manifest, source(), MachineState("test"))
    assert list((tmp_path / "data").iterdir()) == []


def test_what_an_interrupted_restore_left_is_in_nobodys_way(tmp_path: Path) -> None:
    manifest, chunks = snapshot_of(state_of(3))
    leftover = tmp_path / "data" / "raft.restoring"
    leftover.mkdir(parents=True)
    (leftover / "identity.json").write_text("half")
    restore(settings(tmp_path), manifest, chunks, MachineState("test"))
    assert [each.name for each in (tmp_path / "data").iterdir()] == ["raft"]
