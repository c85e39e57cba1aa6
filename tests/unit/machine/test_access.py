"""Roles and bindings in the machine: what is refused, and that a refusal changes nothing."""

from __future__ import annotations

import pytest
from support.driven import DrivenMachine

from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.model.access import (
    BUILT_IN,
    AccessKind,
    AccessSubject,
    AccessSubjectKind,
    RoleBindingSpec,
    RoleSpec,
    Rule,
    Verb,
)
from controlplane.model.commands import Command, DeclareRole, DeclareRoleBinding, Delete
from controlplane.model.types import Kind


def role(name: str = "some", *rules: Rule) -> DeclareRole:
    return DeclareRole(name=name, uid=f"role-{name}", spec=RoleSpec(rules=list(rules)))


def binding(role: str, name: str = "b") -> DeclareRoleBinding:
    subjects = [AccessSubject(kind=AccessSubjectKind.TOKEN, name="ci")]
    return DeclareRoleBinding(name=name, uid=f"binding-{name}", spec=RoleBindingSpec(role=role, subjects=subjects))


def rule(verb: Verb, kind: AccessKind) -> Rule:
    return Rule(verbs=[Verb.READ, verb], kinds=[AccessKind.MICROVM, kind])


HARMLESS = rule(Verb.ACT, AccessKind.HOST)


@pytest.mark.parametrize(
    ("command", "code", "pointer"),
    [
        *((role(name), Code.ROLE_BUILT_IN, "/name") for name in BUILT_IN),
        (role("some", HARMLESS, rule(Verb.DECLARE, AccessKind.ROLE)), Code.INVALID, "/spec/rules/1/verbs"),
        (role("some", rule(Verb.DELETE, AccessKind.ROLE_BINDING)), Code.INVALID, "/spec/rules/0/verbs"),
        (binding("absent"), Code.ROLE_NOT_FOUND, "/spec/role"),
        (binding("host"), Code.ROLE_BUILT_IN, "/spec/role"),
        (binding("node"), Code.ROLE_BUILT_IN, "/spec/role"),
        (Delete(kind=Kind.ROLE, name="absent"), Code.NOT_FOUND, "/name"),
        (Delete(kind=Kind.ROLE, name="viewer"), Code.NOT_FOUND, "/name"),
    ],
)
def test_a_refusal_has_its_field(command: Command, code: Code, pointer: str) -> None:
    machine = DrivenMachine()
    before = machine.state
    outcome = machine.do(command)
    assert isinstance(outcome, Rejected)
    assert (outcome.code, outcome.pointer) == (code, pointer)
    assert machine.state is before


def test_a_role_goes_once_nothing_gives_it() -> None:
    machine = DrivenMachine()
    for command in (role(), binding("some"), binding("viewer", "other")):
        made = machine.do(command)
        assert isinstance(made, Applied)
        assert made.change is Change.CREATED
    refused = machine.do(Delete(kind=Kind.ROLE, name="some"))
    assert isinstance(refused, Rejected)
    assert refused.code is Code.ROLE_IN_USE
    assert "given by 1 binding(s): b" in refused.message
    for kind, name in ((Kind.ROLE_BINDING, "b"), (Kind.ROLE, "some")):
        gone = machine.do(Delete(kind=kind, name=name))
        assert isinstance(gone, Applied)
        assert gone.change is Change.DELETED
    assert not machine.state.roles
    assert list(machine.state.role_bindings) == ["other"]
