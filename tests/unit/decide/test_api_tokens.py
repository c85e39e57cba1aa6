"""Whose a secret is, and that nobody gets a token that may do what he may not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from unit.decide.test_access import ME, NAMES, QUESTIONS, ROLES, allowed, state_of

from controlplane.decide import access
from controlplane.decide.access import Question
from controlplane.decide.api_tokens import Directory, caller_of, ended_at, excess
from controlplane.machine.table import Table
from controlplane.model.access import ANYWHERE, NAMESPACED, AccessLimit, Rule, Verb
from controlplane.model.api_tokens import ApiToken, ApiTokenSpec, RetiredSecret
from controlplane.model.types import replace

LIMITS = st.builds(
    AccessLimit,
    verbs=st.lists(st.sampled_from(Verb), min_size=1, max_size=3),
    namespaces=st.lists(st.sampled_from([ANYWHERE, *NAMES]), min_size=1, max_size=2),
)
WHERE = st.lists(st.sampled_from([ANYWHERE, *NAMES]), min_size=1, max_size=2)


def token(name: str = "ci", digit: str = "1") -> ApiToken:
    return ApiToken(
        name=name,
        uid=name,
        spec=ApiTokenSpec(),
        sha256=digit * 64,
        created_at=0,
        created_by="alice",
        expires_at=1_000,
        inherited=[],
    )


def test_a_secret_is_found_by_its_digest_and_an_old_one_for_a_while() -> None:
    rotated = replace(token("b", "2"), retired=RetiredSecret(sha256="3" * 64, until=500))
    directory = Directory(Table([("a", token("a")), ("b", rotated)]))
    found = {digit: directory.find(digit * 64) for digit in "1234"}
    assert [each and each.name for each in found.values()] == ["a", "b", "b", None]
    assert (ended_at(rotated, "2" * 64), ended_at(rotated, "3" * 64)) == (1_000, 500)


@given(ROLES, WHERE, LIMITS, QUESTIONS)
def test_limits_only_take_away(rules: list[Rule], where: list[str], limit: AccessLimit, question: Question) -> None:
    state = state_of({"some": rules}, ("some", where))
    limited = access.limited(ME, (limit,))
    if allowed(state, question, limited):
        assert allowed(state, question)
        assert Verb.ANY in limit.verbs or question.verb in limit.verbs
        if ANYWHERE not in limit.namespaces:
            assert question.kind in NAMESPACED
            assert question.namespace in limit.namespaces


@given(ROLES, WHERE, ROLES, WHERE, QUESTIONS)
def test_what_is_not_outside_is_covered(
    mine: list[Rule], here: list[str], others: list[Rule], there: list[str], question: Question
) -> None:
    me = access.grants(state_of({"some": mine}, ("some", here)), ME)
    them = access.grants(state_of({"some": others}, ("some", there)), ME)
    assert me.first_outside(me) is None
    if me.first_outside(them) is None and them.covers(question) is not None:
        assert me.covers(question) is not None


@given(ROLES, WHERE, st.lists(LIMITS, max_size=2), LIMITS, QUESTIONS)
def test_nobody_makes_a_token_that_may_more(
    rules: list[Rule], where: list[str], limits: list[AccessLimit], limit: AccessLimit, question: Question
) -> None:
    state = state_of({"some": rules}, ("some", where))
    maker = access.limited(ME, tuple(limits))
    spec = ApiTokenSpec(groups=["ops"], limit=limit)
    made = caller_of("new", spec, maker.limits)
    assert excess(state, maker, access.grants(state, maker), made, spec) is None, "less than one's own is nobody's loss"
    if allowed(state, question, made):
        assert allowed(state, question, maker)
    # With the maker's limits left out it is refused, whatever it may do now.
    if limits:
        wider = caller_of("new", spec)
        found = excess(state, maker, access.grants(state, maker), wider, spec)
        assert found is not None or set(map(str, limits)) <= {str(limit)}
