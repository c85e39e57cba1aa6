"""Assignments from the node's outbox to the agent's inbox: the agent knows exactly what is placed, whatever changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builders import microvm_spec, report, tap
from support.driven import DrivenMachine

from controlplane.agent.assignments import Assignments, Clearing
from controlplane.agent.inbox import Inbox
from controlplane.agent.translate import WireError
from controlplane.api.gateway.found import encode_clearings
from controlplane.api.gateway.outbox import Outbox
from controlplane.decide import gc
from controlplane.model.gc import Deletion
from controlplane.model.resources import Meta, MicroVM, MicroVMPhase
from controlplane.model.secrets import SealedValue
from controlplane.model.spec import GCPolicySpec
from controlplane.model.types import Kind, replace
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2 as wire


def microvm(
    uid: str = "a", *, generation: int = 1, phase: MicroVMPhase = MicroVMPhase.ACTIVE, **changes: int
) -> MicroVM:
    meta = Meta(
        kind=Kind.MICROVM,
        namespace="demo",
        name=f"vm-{uid}",
        uid=uid,
        generation=generation,
        created_at=0,
        updated_at=0,
    )
    return MicroVM(meta=meta, spec=microvm_spec(vcpu=generation), phase=phase, since=0, **{"epoch": 1, **changes})


def no_secrets(_: MicroVM) -> dict[str, str]:
    return {}


microvms = st.builds(
    microvm,
    st.sampled_from("abcd"),
    generation=st.integers(1, 3),
    phase=st.sampled_from([MicroVMPhase.PLACED, MicroVMPhase.ACTIVE, MicroVMPhase.DELETING]),
    epoch=st.integers(1, 2),
    repair_seq=st.integers(0, 1),
    restart_seq=st.integers(0, 1),
)
states = st.lists(microvms, max_size=4).map(lambda vms: {vm.meta.uid: vm for vm in vms})


@given(st.lists(states, min_size=1, max_size=6))
@settings(max_examples=200)
def test_the_agent_knows_what_is_placed(sequence: list[dict[str, MicroVM]]) -> None:
    outbox, inbox = Outbox(no_secrets), Inbox("test")
    known: Assignments | None = None
    for revision, state in enumerate(sequence):
        messages = outbox.messages(revision, state.values())
        for message in messages:
            known = inbox.take(message) or known
        assert known is not None, "even nothing is told once"
        assert known.by_uid.keys() == state.keys()
        for uid, vm in state.items():
            got = known.by_uid[uid]
            assert got.is_tombstone == (vm.phase is MicroVMPhase.DELETING)
            assert got.spec == (None if got.is_tombstone else vm.spec)
            assert (got.epoch, got.generation, got.repair_seq, got.restart_seq) == (
                vm.epoch,
                vm.meta.generation,
                vm.repair_seq,
                vm.restart_seq,
            )
        assert outbox.messages(revision + 1, state.values()) == []


def test_a_spec_travels_once() -> None:
    outbox = Outbox(no_secrets)
    (first,) = outbox.messages(1, [microvm()])
    (second,) = outbox.messages(2, [microvm(repair_seq=1)])
    (third,) = outbox.messages(3, [microvm(generation=2)])
    assert [bool(message.assignments[0].spec_json) for message in (first, second, third)] == [True, False, True]


def test_what_is_large_travels_in_parts_and_counts_at_the_last() -> None:
    metadata = {f"key-{n}": "x" * 65_000 for n in range(16)}
    vms = [replace(microvm(f"u{n:02}"), spec=microvm_spec(metadata=metadata)) for n in range(10)]
    messages = Outbox(no_secrets).messages(5, vms)
    assert len(messages) > 1
    assert max(message.ByteSize() for message in messages) < 4 * 1024 * 1024
    inbox = Inbox("test")
    taken = [inbox.take(message) for message in messages]
    assert taken[:-1] == [None] * (len(messages) - 1)
    assert taken[-1] is not None
    assert len(taken[-1].by_uid) == 10


@pytest.mark.parametrize(
    ("messages", "says"),
    [
        (
            [wire.Assignments(revision=5), wire.Assignments(revision=4)],
            "assignments.revision: went back from 5 to 4",
        ),
        (
            [wire.Assignments(revision=5, more=True), wire.Assignments(revision=6)],
            "assignments.revision: 6 within revision 5",
        ),
        (
            [wire.Assignments(assignments=[wire.Assignment(uid="a", epoch=1, generation=1)])],
            "assignments.a.spec_json: missing",
        ),
        (
            [wire.Assignments(assignments=[wire.Assignment(uid="a", epoch=1, spec_json=b"{}")])],
            "assignments.a.spec_json: not a spec that this agent knows",
        ),
        ([wire.Assignments(assignments=[wire.Assignment(uid="a")])], "assignments.a: uid and epoch are required"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(messages: list[wire.Assignments], says: str) -> None:
    inbox = Inbox("test")
    for message in messages[:-1]:
        inbox.take(message)
    with pytest.raises(WireError, match=says):
        inbox.take(messages[-1])


def test_orders_to_destroy_what_was_given_up_travel_beside_what_is_placed() -> None:
    outbox, inbox = Outbox(no_secrets), Inbox("test")
    (message,) = outbox.messages(1, [microvm("a")], {"b": 3})
    known = inbox.take(message)
    assert known is not None
    assert {uid: (each.is_tombstone, each.epoch) for uid, each in known.by_uid.items()} == {
        "a": (False, 1),
        "b": (True, 3),
    }
    assert outbox.messages(2, [microvm("a")], {"b": 3}) == []
    (message,) = outbox.messages(3, [microvm("a")], {})
    known = inbox.take(message)
    assert known is not None
    assert known.by_uid.keys() == {"a"}


def test_an_order_travels_with_who_gave_it_and_why() -> None:
    asked, given_up = (
        Deletion(actor="alice", at=1, reason="not needed"),
        Deletion(actor="gc", at=1, reason="nobody's"),
    )
    placed = replace(microvm("a", phase=MicroVMPhase.DELETING), deletion=asked)
    (message,) = Outbox(no_secrets).messages(1, [placed], {"b": 3, "c": 1}, {"b": given_up})
    known = Inbox("test").take(message)
    assert known is not None
    reasons = {uid: each.reason for uid, each in known.by_uid.items()}
    assert reasons == {"a": "not needed (alice)", "b": "nobody's (gc)", "c": ""}


def test_orders_to_delete_leftovers_reach_the_agent_for_as_long_as_it_tells_of_them() -> None:
    machine = DrivenMachine().with_host()
    outbox, inbox = Outbox(no_secrets), Inbox("test")

    def arrives() -> Assignments | None:
        state, host = machine.state, machine.host()
        clearings = encode_clearings(host)
        messages = outbox.messages(state.revision, state.microvms_on("h1"), host.stale, host.orders, clearings)
        return next((each for message in messages if (each := inbox.take(message)) is not None), None)

    first = arrives()
    assert first is not None
    assert (first.governs_leftovers, first.clearings) == (True, [])
    machine.accept(report(left_behind=[tap()]))
    assert arrives() is None, "what is only told is no order"
    made = gc.plan(machine.state, GCPolicySpec(leftover_after_s=0), now_ms=machine.at)
    machine.accept(made.collect[0].command, actor="gc")
    ordered = arrives()
    assert ordered is not None
    assert ordered.clearings == [
        Clearing("qemu", "tap/fl0", "tap of microVM vm-old, epoch 3, and nothing there needs it (gc)")
    ]
    machine.accept(report(left_behind=[]))
    done = arrives()
    assert done is not None
    assert done.clearings == []


def test_secrets_travel_with_their_spec_and_with_nothing_else() -> None:
    secret = replace(
        microvm("a"),
        spec=microvm_spec(sensitive_metadata={"user-data": "hmac-sha256:" + "5e" * 32}),
        sealed={"user-data": SealedValue(key_id="k", box="AQ==")},
    )
    outbox, inbox = Outbox(lambda vm: {"user-data": f"of {vm.meta.uid}"}), Inbox("test")
    (first,) = outbox.messages(1, [secret, microvm("b")])
    known = inbox.take(first)
    assert known is not None
    assert {uid: dict(each.sensitive) for uid, each in known.by_uid.items()} == {"a": {"user-data": "of a"}, "b": {}}
    assert "of a" not in repr(known)
    assert b"AQ==" not in first.SerializeToString(), "the agent needs no ciphertext"
    (second,) = outbox.messages(2, [replace(secret, repair_seq=1)])
    assert not any(each.sensitive for each in second.assignments)
    known = inbox.take(second)
    assert known is not None
    assert known.by_uid["a"].sensitive == {"user-data": "of a"}
    (third,) = outbox.messages(3, [replace(secret, phase=MicroVMPhase.DELETING)])
    assert not any(each.sensitive for each in third.assignments)


def test_a_spec_without_its_secrets_is_refused_by_name() -> None:
    secret = replace(microvm("a"), spec=microvm_spec(sensitive_metadata={"user-data": "hmac-sha256:" + "5e" * 32}))
    (message,) = Outbox(no_secrets).messages(1, [secret])
    with pytest.raises(WireError, match=r"assignments\.a\.sensitive\.user-data: missing"):
        Inbox("test").take(message)
