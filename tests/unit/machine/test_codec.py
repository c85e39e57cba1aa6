"""Snapshots: equal states give equal bytes, and bytes that are no state are refused in words."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.audited import AuditedMachine
from support.builders import agent_connected, declare_host, declare_microvm, declare_namespace, declare_policy
from support.driven import DrivenMachine
from support.invariants import check_snapshot
from support.snapshots import chunks, dump

from controlplane.machine.codec import (
    CHUNK_BYTES,
    FORMAT,
    RECORDS_PER_CHUNK,
    Loader,
    View,
    digest_text,
    full_digest,
    read_header,
)
from controlplane.machine.draft import DIGEST_FORMAT, DIGEST_MODULUS, digest_of
from controlplane.machine.entry import MachineState, apply_entry
from controlplane.machine.state import BLOCK, Queue, State
from controlplane.model.commands import ENTRY_VERSION, Entry, UnknownEntryError, decode_entry, encode_entry, seal
from controlplane.model.resources import Meta, Namespace
from controlplane.model.spec import NamespaceSpec
from controlplane.model.types import Kind, replace


def some_state() -> State:
    machine = DrivenMachine().with_host()
    machine.accept(declare_policy(), key="k")
    machine.active("a")
    machine.pending("b")
    return machine.state


def test_a_state_survives_a_snapshot() -> None:
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


def header_of(state: State, **fields: object) -> bytes:
    return msgspec.msgpack.encode(msgspec.structs.replace(read_header(View(state).header()), **fields))


def load(header: bytes, parts: list[bytes]) -> State:
    loader = Loader(header)
    for part in parts:
        loader.add(part)
    return loader.finish()


def test_a_snapshot_of_another_format_is_refused() -> None:
    with pytest.raises(ValueError, match=f"format {FORMAT + 1}; this build reads {FORMAT}"):
        Loader(header_of(some_state(), format=FORMAT + 1))


def test_a_snapshot_whose_records_do_not_give_its_digest_is_refused() -> None:
    state = some_state()
    parts = chunks(state)
    assert load(header_of(state), parts[::-1]) == state
    for at in range(len(parts)):
        with pytest.raises(ValueError, match=r"digest|are not those|no record"):
            load(header_of(state), parts[:at] + parts[at + 1 :])
    with pytest.raises(ValueError, match="digest"):
        load(header_of(state), [*parts, parts[0]])
    with pytest.raises(ValueError, match="the blocks of key_order are not those from 0 to 2"):
        load(header_of(state, key_order=(0, 2)), parts)
    with pytest.raises(ValueError, match="digest"):
        load(header_of(state, digest="0" * 32), parts)
    # A build that reckoned digests otherwise wrote it: nothing to compare.
    assert load(header_of(state, digest="0" * 32, digest_format=DIGEST_FORMAT - 1), parts) == state


def test_a_snapshot_with_an_audit_record_that_is_not_what_its_hash_says_is_refused() -> None:
    machine = AuditedMachine()
    machine.do(declare_namespace("demo"))
    state = machine.state
    parts = chunks(state)
    forged = [part.replace(b"alice", b"mallo") for part in parts]
    assert load(header_of(state), parts) == state
    assert forged != parts
    with pytest.raises(ValueError, match="audit record 2 has another hash than its content"):
        load(header_of(state), forged)


@given(st.data())
def test_damaged_bytes_are_refused_as_such(data: st.DataObject) -> None:
    state = some_state()
    parts = chunks(state)
    number = data.draw(st.integers(0, len(parts) - 1))
    whole = bytearray(parts[number])
    cut = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(ValueError, match="not a chunk of a state snapshot"):
        load(header_of(state), [bytes(whole[:cut])])
    with pytest.raises(ValueError, match="not the header of a state snapshot"):
        Loader(header_of(state)[: min(cut, len(header_of(state)) - 1)])
    whole[cut] ^= 1 << data.draw(st.integers(0, 7))
    parts[number] = bytes(whole)
    # What the digest does not cover (the order of what is forgotten) is for the chunks' checksums to protect.
    with suppress(ValueError):
        load(header_of(state), parts)


def namespaces(names: Iterable[str]) -> State:
    """A state that holds these namespaces, as if they had been declared at once."""
    records = [
        Namespace(meta=Meta(kind=Kind.NAMESPACE, name=name, uid=name, created_at=0, updated_at=0), spec=NamespaceSpec())
        for name in names
    ]
    state = State(cluster_id="test")
    for each in records:
        total = (state.digest + digest_of(each.meta.name, each)) % DIGEST_MODULUS
        state = replace(state, namespaces=state.namespaces.set(each.meta.name, each), digest=total)
    return state


@given(st.sets(st.text("abcdef", max_size=4), max_size=200), st.randoms())
def test_equal_states_give_equal_chunks_whatever_their_history(names: set[str], chance: Random) -> None:
    order = sorted(names)
    one = namespaces(order)
    chance.shuffle(order)
    other = namespaces([*order, "gone"])
    gone = other.namespaces["gone"]
    other = replace(
        other,
        namespaces=other.namespaces.delete("gone"),
        digest=(other.digest - digest_of("gone", gone)) % DIGEST_MODULUS,
    )
    assert dump(one) == dump(other)
    assert [part.key for part in View(one).parts()] == [part.key for part in View(other).parts()]


def test_a_chunk_holds_some_ten_records_and_a_change_touches_one() -> None:
    state = namespaces(f"n{i}" for i in range(2_000))
    before = {part.key: part for part in View(state).parts()}
    assert 8 <= 2_000 / len(before) <= RECORDS_PER_CHUNK
    first = state.namespaces["n77"]
    state = replace(state, namespaces=state.namespaces.set("n77", replace(first, meta=replace(first.meta, uid="x"))))
    after = {part.key: part for part in View(state).parts()}
    assert before.keys() == after.keys()
    changed = [
        key for key in before if any(a is not b for a, b in zip(before[key].identity, after[key].identity, strict=True))
    ]
    assert len(changed) == 1
    unequal = [key for key in before if before[key].encode() != after[key].encode()]
    assert unequal == changed


def test_large_chunks_are_cut_and_come_back() -> None:
    state = namespaces(f"n{i}" for i in range(15))
    for name, each in state.namespaces.items():
        large = replace(each, meta=replace(each.meta, annotations={"a": "x" * 300_000}))
        state = replace(state, namespaces=state.namespaces.set(name, large))
    state = replace(state, digest=full_digest(state))
    parts = chunks(state)
    assert 5 <= len(parts) <= 15
    assert max(map(len, parts)) <= CHUNK_BYTES
    assert load(header_of(state), parts) == state


def test_blocks_of_a_queue_are_kept_by_position() -> None:
    queue = Queue()
    for number in range(3 * BLOCK):
        queue = queue.push(str(number))
    for _ in range(BLOCK + 5):
        queue = queue.pop()
    assert sorted(queue.blocks) == [1, 2]
    assert list(queue) == [str(number) for number in range(BLOCK + 5, 3 * BLOCK)]
    assert queue.first() == str(BLOCK + 5)
    full = queue.blocks[1]
    assert queue.push("more").blocks[1] is full
    while len(queue):
        queue = queue.pop()
    assert not queue.blocks
    assert list(queue.push("again")) == ["again"]


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
    loader = other.begin_load(machine.view().header())
    for part in machine.view().parts():
        for chunk in part.encode():
            loader.add(chunk)
    adopt = loader.finish()
    assert other.digest() == MachineState("test").digest(), "nothing has changed yet"
    adopt()
    assert other.digest() == machine.digest()
    assert other.state == machine.state


def test_a_snapshot_of_another_cluster_is_refused() -> None:
    with pytest.raises(ValueError, match="is of cluster test, not other"):
        MachineState("other").begin_load(MachineState("test").view().header())


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
