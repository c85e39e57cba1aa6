"""The decision: what is not given is refused, more bindings never take away, and limits only narrow."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from controlplane.decide import access
from controlplane.decide.access import Caller, Question
from controlplane.machine.state import State
from controlplane.machine.table import Table
from controlplane.model.access import (
    BUILT_IN,
    GUARDED,
    NAMESPACED,
    AccessKind,
    AccessSubject,
    AccessSubjectKind,
    RoleBindingSpec,
    RoleSpec,
    Rule,
    Verb,
)
from controlplane.model.resources import Meta, Role, RoleBinding
from controlplane.model.types import Kind

ME = access.of_token("me", groups=["ops"])
NAMES = ("blue", "red")
LABELS = st.dictionaries(st.sampled_from(["tier"]), st.sampled_from(NAMES))
RULES = st.builds(
    Rule,
    verbs=st.lists(st.sampled_from(Verb), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(AccessKind), min_size=1, max_size=3),
    namespaces=st.lists(st.sampled_from(["*", *NAMES]), min_size=1, max_size=2),
    names=st.lists(st.sampled_from(NAMES), max_size=2),
    labels=LABELS,
)
ROLES = st.lists(RULES, max_size=4)
QUESTIONS = st.builds(
    Question,
    verb=st.sampled_from([verb for verb in Verb if verb is not Verb.ANY]),
    kind=st.sampled_from([kind for kind in AccessKind if kind is not AccessKind.ANY]),
    namespace=st.sampled_from([None, *NAMES]),
    name=st.sampled_from([None, *NAMES]),
    labels=LABELS,
)


def meta(kind: Kind, name: str) -> Meta:
    return Meta(
        kind=kind,
        name=name,
        uid=name,
        intent_revision=1,
        revision=1,
        created_at=1,
        updated_at=1,
        labels={},
        annotations={},
    )


def state_of(roles: dict[str, list[Rule]], *bindings: tuple[str, list[str]]) -> State:
    """Each binding gives a role, in namespaces, to the group of ME."""
    ops = [AccessSubject(kind=AccessSubjectKind.GROUP, name="ops")]
    specs = [RoleBindingSpec(role=role, subjects=ops, namespaces=where) for role, where in bindings]
    return State(
        cluster_id="test",
        roles=Table(
            (name, Role(meta=meta(Kind.ROLE, name), spec=RoleSpec(rules=rules))) for name, rules in roles.items()
        ),
        role_bindings=Table(
            (f"b{number}", RoleBinding(meta=meta(Kind.ROLE_BINDING, f"b{number}"), spec=spec))
            for number, spec in enumerate(specs)
        ),
    )


def allowed(state: State, question: Question, caller: Caller = ME) -> bool:
    decision = access.decide(state, caller, question)
    assert decision.allowed is (decision.by is not None) is (not decision.would_allow)
    return decision.allowed


@given(ROLES, QUESTIONS)
def test_a_role_that_nobody_was_given_allows_nothing(rules: list[Rule], question: Question) -> None:
    assert not allowed(state_of({"some": rules}), question)
    assert not allowed(state_of({"some": rules}, ("some", ["*"])), question, access.of_token("somebody-else"))


@given(ROLES, ROLES, QUESTIONS)
def test_another_binding_takes_nothing_away(one: list[Rule], other: list[Rule], question: Question) -> None:
    alone = state_of({"one": one, "other": other}, ("one", ["*"]))
    both = state_of({"one": one, "other": other}, ("one", ["*"]), ("other", ["*"]))
    assert allowed(both, question) >= allowed(alone, question)


@given(ROLES, QUESTIONS)
def test_a_limit_only_narrows(rules: list[Rule], question: Question) -> None:
    everywhere = state_of({"some": rules}, ("some", ["*"]))
    limited = state_of({"some": rules}, ("some", ["blue"]))
    if allowed(limited, question):
        assert allowed(everywhere, question)
        assert question.namespace == "blue"
        assert question.kind in NAMESPACED


@given(ROLES, QUESTIONS)
def test_no_declared_role_changes_roles_or_does_what_members_do(rules: list[Rule], question: Question) -> None:
    if allowed(state_of({"some": rules}, ("some", ["*"])), question):
        assert question.kind not in (AccessKind.SESSION, AccessKind.RELAY)
        assert question.kind not in GUARDED or question.verb is Verb.READ


@given(ROLES, QUESTIONS)
def test_what_a_rule_says_it_allows(rules: list[Rule], question: Question) -> None:
    """The same once more, rule by rule, without tables and scopes."""

    def says(rule: Rule) -> bool:
        guarded = question.kind in GUARDED and question.verb is not Verb.READ
        inside = "*" in rule.namespaces or (question.kind in NAMESPACED and question.namespace in rule.namespaces)
        return (
            (Verb.ANY in rule.verbs or question.verb in rule.verbs)
            and (AccessKind.ANY in rule.kinds or question.kind in rule.kinds)
            and question.kind not in (AccessKind.SESSION, AccessKind.RELAY)
            and not guarded
            and inside
            and (not rule.names or question.name in rule.names)
            and all((question.labels or {}).get(key) == value for key, value in rule.labels.items())
        )

    assert allowed(state_of({"some": rules}, ("some", ["*"])), question) is any(map(says, rules))


def test_admin_may_everything_that_is_not_a_members() -> None:
    admin = access.of_token("root", roles=["admin"])
    state = State(cluster_id="test")
    for verb in set(Verb) - {Verb.ANY}:
        for kind in set(AccessKind) - {AccessKind.ANY}:
            expected = kind not in (AccessKind.SESSION, AccessKind.RELAY)
            assert allowed(state, Question(verb=verb, kind=kind), admin) is expected


def test_a_host_acts_for_its_own_name_alone() -> None:
    state, host = State(cluster_id="test"), access.of_member("host", "h1")
    own = Question(verb=Verb.ACT, kind=AccessKind.SESSION, name="h1")
    assert allowed(state, own, host)
    assert not allowed(state, Question(verb=Verb.ACT, kind=AccessKind.SESSION, name="h2"), host)
    assert set(BUILT_IN) == {"viewer", "operator", "admin", "provisioner", "host", "node"}
