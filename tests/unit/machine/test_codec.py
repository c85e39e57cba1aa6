"""Snapshots: equal states give equal bytes, and bytes that are no state are refused in words."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builders import agent_connected, declare_host, declare_microvm, declare_policy
from support.driven import DrivenMachine
from support.invariants import check_snapshot

from controlplane.machine.codec import FORMAT, digest_text, dump, load
from controlplane.machine.entry import MachineState, apply_entry
from controlplane.machine.state import State
from controlplane.model.commands import ENTRY_VERSION, Entry, UnknownEntryError, decode_entry, encode_entry, seal


def some_state() -> State:
    machine = DrivenMachine().with_host()
    machine.accept(declare_policy(), key="k")
    machine.active("a")
    machine.pending("b")
    return machine.state


def test_a_state_survives_a_dump() -> None:
    check_snapshot(some_state())
    check_snapshot(State(cluster_id="empty"))


def test_the_digest_depends_on_every_kind_of_record() -> None:
    digests = {digest_text(State(cluster_id="test"))}
    machine = DrivenMachine()
    for step in (
        machine.with_host,
        lambda: machine.accept(declare_policy()),
        lambda: machine.accept(declare_policy(), key="only a key"),
        machine.pending,
    ):
        step()
        digests.add(digest_text(machine.state))
    assert len(digests) == 5


def changed(data: bytes, **fields: object) -> bytes:
    read = msgspec.msgpack.decode(data)
    return msgspec.msgpack.encode({**read, **fields})


def test_a_snapshot_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}"):
        load(changed(dump(some_state()), format=FORMAT + 1))


def test_a_snapshot_whose_records_do_not_give_its_digest_is_refused() -> None:
    with pytest.raises(ValueError, match="digest"):
        load(changed(dump(some_state()), policies=[]))


@given(st.data())
def test_damaged_bytes_are_refused_as_such(data: st.DataObject) -> None:
    whole = bytearray(dump(some_state()))
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match="not a state snapshot"):
        load(bytes(whole[:cut]))
    whole[cut] ^= 1 << data.draw(st.integers(0, 7))
    try:
        load(bytes(whole))
    except ValueError:
        return
    # What the digest does not cover (the cluster's id, the revision) is the journal's checksum to protect.


# -- the machine as the log sees it ------------------------------------------------------------------------------------


def test_commands_of_one_entry_are_applied_each_for_itself() -> None:
    machine = MachineState("test")
    entry = encode_entry(
        [
            seal(declare_host(), id="1", at=1, actor="alice"),
            seal(declare_microvm(), id="2", at=2, actor="alice"),
            seal(agent_connected(), id="3", at=3, actor="h1"),
        ]
    )
    state, outcomes, events = apply_entry(machine.state, entry, index=7, term=2)
    assert [(id_, type(outcome).__name__) for id_, outcome in outcomes] == [
        ("1", "Applied"),
        ("2", "Rejected"),
        ("3", "Applied"),
    ]
    assert [event.revision for event in events] == [1, 2]
    machine.apply(7, 2, entry)
    assert machine.digest() == digest_text(state)
    other = MachineState("test")
    other.load(7, machine.dump())
    assert other.digest() == machine.digest()


def test_a_snapshot_of_another_cluster_is_refused() -> None:
    with pytest.raises(ValueError, match="is of cluster test, not other"):
        MachineState("other").load(1, MachineState("test").dump())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        msgspec.msgpack.encode({"v": 1}),
        msgspec.msgpack.encode({"v": 1, "commands": [{"kind": "act"}]}),
        msgspec.msgpack.encode(Entry(v=ENTRY_VERSION + 1, commands=[])),
    ],
)
def test_what_is_no_entry_of_ours_stops_the_node(data: bytes) -> None:
    with pytest.raises(UnknownEntryError):
        decode_entry(data)


@given(st.binary(max_size=200))
def test_no_bytes_decode_with_another_error(data: bytes) -> None:
    try:
        decode_entry(data)
    except UnknownEntryError:
        return
