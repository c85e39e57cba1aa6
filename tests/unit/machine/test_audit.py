"""What the audit chain says of commands, what it leaves out, and what becomes of its oldest records."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from simulation.random_commands import RandomCommands
from simulation.replay import Seeded
from support.audited import AuditedMachine
from support.builders import (
    agent_connected,
    declare_host,
    declare_microvm,
    declare_namespace,
    observation,
    place,
    report,
)
from support.snapshots import dump, load

from controlplane.machine import audit
from controlplane.machine.audit_targets import target_of
from controlplane.machine.codec import full_digest
from controlplane.machine.draft import digest_of
from controlplane.machine.entry import apply_entry
from controlplane.machine.outcome import Applied, Rejected
from controlplane.machine.state import State
from controlplane.model.api_tokens import ApiTokenSpec
from controlplane.model.audit import GENESIS, AuditOutcome, Origin, followed
from controlplane.model.commands import (
    KINDS,
    Batch,
    BeginAudit,
    CreateApiToken,
    Delete,
    DropAudit,
    ExportedAudit,
    NoteApiTokenUses,
    RevokeApiToken,
    Witnessed,
    WitnessRequests,
    decode_entry,
    encode_entry,
    open_payload,
    seal,
)
from controlplane.model.types import Kind

ROOT = Path(__file__).resolve().parents[3]
ORIGIN = Origin(address="192.0.2.1", request="r1", trace="0af7651916cd43dd8448eb211c80319c", agent="flintctl/1")


def test_nothing_is_recorded_before_the_chain_begins_and_it_begins_once() -> None:
    state = State(cluster_id="test")
    envelopes = [
        seal(command, id=f"c{number}", at=number, actor="alice")
        for number, command in enumerate([declare_namespace("old"), BeginAudit(node="n1"), BeginAudit(node="n2")])
    ]
    state, _, _ = apply_entry(state, encode_entry(envelopes), index=1, term=1)
    (first,) = state.audit.values()
    assert (first.sequence, first.previous, first.name, first.command) == (1, GENESIS, "test", "c1")


def test_a_change_says_who_what_from_where_and_how_the_object_changed() -> None:
    machine = AuditedMachine()
    machine.do(declare_namespace("demo"), origin=ORIGIN)
    made = machine.last
    assert (made.actor, made.action, made.outcome) == ("alice", "declare_namespace", AuditOutcome.CREATED)
    assert (made.kind, made.name, made.before) == ("Namespace", "demo", None)
    assert made.after is not None
    assert made.uid == machine.state.namespaces["demo"].meta.uid
    assert (made.address, made.request, made.trace, made.agent) == ("192.0.2.1", "r1", ORIGIN.trace, "flintctl/1")
    machine.do(declare_namespace("demo", max_vcpu=4))
    assert (machine.last.outcome, machine.last.before) == (AuditOutcome.CHANGED, made.after)
    machine.do(declare_namespace("demo", max_vcpu=4))
    assert (machine.last.outcome, machine.last.before) == (AuditOutcome.UNCHANGED, machine.last.after)
    machine.do(Delete(kind=Kind.NAMESPACE, name="demo", reason="of no use"))
    assert (machine.last.outcome, machine.last.after, machine.last.reason) == (AuditOutcome.DELETED, None, "of no use")


def test_a_refusal_is_recorded_and_changes_nothing_but_the_chain() -> None:
    machine = AuditedMachine()
    before = machine.state
    machine.do(declare_microvm("web", namespace="nowhere"))
    assert machine.state.revision == before.revision
    assert machine.state.digest == before.digest
    last = machine.last
    assert (last.outcome, last.code, last.name) == (AuditOutcome.REFUSED, "namespace_not_found", "web")


def test_two_builds_that_record_other_digests_of_an_object_have_states_of_one_digest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As while a cluster is upgraded: nobody may be taken for a node that went wrong."""
    older, newer = AuditedMachine(), AuditedMachine()
    older.do(declare_namespace("demo"))
    monkeypatch.setattr(audit, "digests_of", lambda *_: (None, "0" * 32))
    newer.do(declare_namespace("demo"))
    assert older.last.hash != newer.last.hash
    assert older.state.digest == newer.state.digest == full_digest(newer.state)


def test_each_part_of_a_batch_is_a_record_and_of_a_refused_one_the_part_that_was() -> None:
    machine = AuditedMachine()

    def batch(*commands: object) -> Batch:
        return Batch(commands=[seal(each, id="p", at=machine.at, actor="alice") for each in commands])  # pyright: ignore[reportArgumentType]

    machine.do(batch(declare_namespace("demo"), declare_microvm("a"), declare_microvm("b")), origin=ORIGIN)
    assert [(each.part, each.name, each.outcome.value) for each in machine.chain[1:]] == [
        (0, "demo", "created"),
        (1, "a", "created"),
        (2, "b", "created"),
    ]
    machine.do(batch(declare_microvm("c"), declare_microvm("d", namespace="nowhere")))
    assert (machine.last.part, machine.last.name, machine.last.outcome.value) == (1, "d", "refused")
    assert machine.state.audit_head == 5


def test_a_batch_says_of_its_objects_what_was_before_it_and_what_is_after_it() -> None:
    machine = AuditedMachine()
    for command in (declare_namespace("demo"), declare_microvm("web"), declare_microvm("api")):
        machine.do(command)
    before = machine.state
    commands = [
        Delete(kind=Kind.MICROVM, namespace="demo", name="web"),
        declare_microvm("web", uid="another"),
        declare_microvm("api", vcpu=2),
        declare_microvm("api", vcpu=3),
    ]
    parts = [seal(each, id="p", at=machine.at, actor="alice") for each in commands]
    assert isinstance(machine.do(Batch(commands=parts)), Applied)

    def digest(state: State, name: str) -> str:
        vm = state.microvm("demo", name)
        assert vm is not None
        return f"{digest_of(vm.meta.uid, vm):032x}"

    told = [(each.name, each.before, each.after) for each in machine.chain[-4:]]
    web, api = ((name, digest(before, name), digest(machine.state, name)) for name in ("web", "api"))
    assert told == [web, web, api, api]


def test_decisions_are_recorded_where_they_change_something_and_observations_never() -> None:
    machine = AuditedMachine()
    for command in (declare_namespace("demo"), declare_host("h1"), declare_microvm("web")):
        machine.do(command)
    machine.do(agent_connected("h1"), actor="host:h1")
    vm = machine.state.microvm("demo", "web")
    assert vm is not None
    head = machine.state.audit_head
    assert isinstance(machine.do(place(vm), actor="scheduler"), Applied)
    assert (machine.last.sequence, machine.last.actor, machine.last.name) == (head + 1, "scheduler", "web")
    placed = machine.state.microvm("demo", "web")
    assert placed is not None
    machine.do(report(observation(placed)), actor="host:h1")
    assert isinstance(machine.do(place(vm), actor="scheduler"), Rejected)
    assert machine.state.audit_head == head + 1


def test_requests_that_led_to_no_command_are_recorded_as_their_node_saw_them() -> None:
    machine = AuditedMachine()
    refused = Witnessed(at=7, actor=None, action="PUT /hosts/{name}", status=401, name="h1", count=9)
    done = Witnessed(at=8, actor="bob", action="POST /raft/members", status=200, origin=ORIGIN)
    machine.do(WitnessRequests(node="n2", requests=[refused, done]), actor="audit")
    one, two = machine.chain[1:]
    assert (one.at, one.actor, one.status, one.count, one.node, one.outcome.value) == (7, None, 401, 9, "n2", "refused")
    assert (two.actor, two.address, two.outcome.value) == ("bob", "192.0.2.1", "done")


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_command_is_observed_or_names_what_it_is_about(kind: str) -> None:
    golden = max((ROOT / "schemas" / "log" / "golden").glob(f"{kind}.*.json"))
    (envelope,) = decode_entry(bytes.fromhex(json.loads(golden.read_text())["entry_hex"]))
    command = open_payload(envelope)
    about_nothing = (BeginAudit, DropAudit, ExportedAudit, WitnessRequests, Batch)
    observed = audit._OBSERVED  # pyright: ignore[reportPrivateUsage]
    target = target_of(State(cluster_id="test"), command)
    assert isinstance(command, (*about_nothing, *observed)) or target.name or target.uid


def test_texts_from_outside_are_bounded() -> None:
    machine = AuditedMachine()
    machine.do(Delete(kind=Kind.HOST, name="h", reason="x" * 1000), origin=Origin(agent="y" * 100_000))
    assert machine.last.reason == "x" * audit.MAX_TEXT
    assert machine.last.agent == "y" * audit.MAX_TEXT


def test_records_are_dropped_once_every_node_that_exports_has_them() -> None:
    machine = AuditedMachine()
    for number in range(9):
        machine.do(declare_namespace(f"n{number}"))
    machine.do(ExportedAudit(node="n1", through=8), actor="audit")
    machine.do(ExportedAudit(node="n2", through=4), actor="audit")
    refused = machine.do(DropAudit(through=5), actor="audit")
    assert isinstance(refused, Rejected)
    assert refused.message == "node n2 has written the audit chain up to record 4 only"
    machine.do(DropAudit(through=4), actor="audit")
    assert (machine.state.audit_first, machine.last.action) == (5, "drop_audit")
    # Whoever has not said anything for a week does not hold the others' memory for ever.
    machine.at += audit.PATIENCE_MS
    machine.do(ExportedAudit(node="n1", through=11), actor="audit")
    machine.do(DropAudit(through=10), actor="audit")
    assert machine.state.audit_first == 11
    assert isinstance(machine.do(DropAudit(through=machine.state.audit_head)), Rejected), "the newest one stays"
    assert list(followed(machine.chain))


def test_the_state_holds_so_many_records_and_not_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_HELD", 5)
    machine = AuditedMachine()
    for number in range(9):
        machine.do(declare_namespace(f"n{number}"))
    assert [each.sequence for each in machine.chain] == [6, 7, 8, 9, 10]
    assert list(followed(machine.chain))


def test_a_token_is_named_without_its_secret_and_its_use_is_no_news() -> None:
    machine = AuditedMachine()
    made = CreateApiToken(name="ci", uid="uid-ci", spec=ApiTokenSpec(), sha256="1" * 64, expires_at=10**12)
    for command in (made, NoteApiTokenUses(used={"ci": 5}), RevokeApiToken(name="ci", uid="uid-ci")):
        machine.do(command)
    created, revoked = machine.chain[-2:]
    assert (created.action, created.kind, created.name, created.uid) == ("create_api_token", "ApiToken", "ci", "uid-ci")
    assert revoked.action == "revoke_api_token"
    assert (created.before, revoked.after) == (None, None)
    assert created.after is not None
    assert "1" * 64 not in f"{created} {revoked}"


@pytest.mark.parametrize("seed", range(5))
def test_the_chain_of_any_history_holds_and_is_the_same_after_a_replay_and_through_a_snapshot(seed: int) -> None:
    machine = AuditedMachine()
    commands = RandomCommands(Seeded(seed))
    state, entries, chain = machine.state, list(machine.entries), machine.chain
    for number in range(400):
        entry = encode_entry([commands.next(state)])
        state, _, _ = apply_entry(state, entry, index=number + 2, term=1)
        entries.append(entry)
        # As they come: some are dropped again.
        chain += [state.audit_at(record) for record in range(chain[-1].sequence + 1, state.audit_head + 1)]
    assert len(list(followed(chain))) > 100
    again = State(cluster_id="test")
    for number, entry in enumerate(entries):
        again, _, _ = apply_entry(again, entry, index=number + 1, term=1)
        if number == 200:
            again = load(dump(again))
    assert again.digest == state.digest
    assert again.audit == state.audit
