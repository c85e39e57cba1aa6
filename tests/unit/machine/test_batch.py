"""Batches: all of it or nothing."""

from __future__ import annotations

import msgspec
import pytest
from msgspec import Raw
from support.builders import agent_connected, declare_microvm, declare_namespace, declare_policy, report
from support.driven import DrivenMachine

from controlplane.machine.apply import apply
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import (
    Batch,
    Command,
    Delete,
    Envelope,
    MarkUnplaced,
    UnknownEntryError,
    decode_entry,
    encode_entry,
    open_payload,
    seal,
)
from controlplane.model.spec import Placement
from controlplane.model.types import Kind


@pytest.fixture
def machine() -> DrivenMachine:
    return DrivenMachine()


def test_later_commands_build_on_earlier_ones_at_one_revision(machine: DrivenMachine) -> None:
    done = machine.batch(declare_namespace(), declare_policy(), declare_microvm(placement=Placement(policy="spread")))
    assert isinstance(done, Applied)
    assert (done.change, done.revision, machine.state.revision) == (Change.CHANGED, 1, 1)
    assert [part.change for part in done.parts] == [Change.CREATED] * 3
    assert {part.revision for part in done.parts} == {1}


@pytest.mark.parametrize("position", [0, 1, 2])
def test_one_refusal_refuses_all(machine: DrivenMachine, position: int) -> None:
    machine.accept(declare_namespace())
    commands = [declare_microvm("a"), declare_microvm("b")]
    commands.insert(position, declare_microvm("c", namespace="nowhere"))
    refused = machine.batch(*commands)
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.pointer, refused.part) == (Code.NAMESPACE_NOT_FOUND, "/namespace", position)
    assert not machine.state.microvms


def test_each_part_says_what_it_changed_itself(machine: DrivenMachine) -> None:
    machine.accept(declare_namespace())
    machine.accept(declare_microvm("same"))
    done = machine.batch(declare_microvm("new"), declare_microvm("same"), declare_microvm("same", vcpu=2))
    assert isinstance(done, Applied)
    assert [part.change for part in done.parts] == [Change.CREATED, Change.UNCHANGED, Change.CHANGED]


def test_a_batch_that_changes_nothing(machine: DrivenMachine) -> None:
    machine.accept(declare_namespace())
    for commands in ([], [declare_namespace()], [declare_policy(), Delete(kind=Kind.PLACEMENT_POLICY, name="spread")]):
        done = machine.batch(*commands)
        assert isinstance(done, Applied)
        assert (done.change, done.revision) == (Change.UNCHANGED, machine.state.revision)
        assert {part.revision for part in done.parts} <= {machine.state.revision}


def test_quotas_hold_within_a_batch(machine: DrivenMachine) -> None:
    machine.accept(declare_namespace(max_microvms=1))
    refused = machine.batch(declare_microvm("a"), declare_microvm("b"))
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.part) == (Code.QUOTA_EXCEEDED, 1)


@pytest.mark.parametrize(
    "command", [agent_connected("h2"), report(), MarkUnplaced(uid="u", generation=1, reason="", message="")]
)
def test_only_what_users_ask_for_is_batched(machine: DrivenMachine, command: Command) -> None:
    machine.with_host()
    refused = machine.batch(declare_policy(), command)
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.part) == (Code.INVALID, 1)


def nested(depth: int) -> Batch:
    batch = Batch(commands=[])
    for level in range(depth):
        batch = Batch(commands=[seal(batch, id=f"d{level}", at=0, actor="alice")])
    return batch


@pytest.mark.parametrize("depth", [1, 2, 100])
def test_a_batch_in_a_batch_is_refused(machine: DrivenMachine, depth: int) -> None:
    refused = machine.do(nested(depth), key="k")
    assert isinstance(refused, Rejected)
    assert (refused.code, refused.part) == (Code.INVALID, 0)
    machine.accept(declare_namespace(), key="k")
    machine.refuse(nested(depth), Code.IDEMPOTENCY_KEY_REUSED, "/header/idempotency-key", key="k")


def test_nesting_deeper_than_any_interpreter_reads_stops_the_node() -> None:
    inner, outer = (bytes(seal(nested(depth), id="d0", at=0, actor="alice").payload) for depth in (0, 1))
    before, after = outer.split(inner)
    payload = Raw(before * 100_000 + inner + after * 100_000)
    envelope = msgspec.structs.replace(seal(nested(0), id="1", at=0, actor="alice"), payload=payload)
    with pytest.raises(UnknownEntryError):
        open_payload(envelope)
    with pytest.raises(UnknownEntryError):
        decode_entry(encode_entry([envelope]))


def test_an_unknown_kind_inside_stops_the_node() -> None:
    known = seal(declare_namespace(), id="1", at=0, actor="alice")
    unknown = Envelope(kind="from_the_future", id="2", at=0, actor="alice", payload=known.payload)
    batch = seal(Batch(commands=[known, unknown]), id="3", at=0, actor="alice")
    state = State(cluster_id="test")
    with pytest.raises(UnknownEntryError, match="from_the_future"):
        apply(state, batch, index=1, term=1)
    assert not state.namespaces
