"""The one decision of who may do what. Pure: roles, bindings and a question in, a decision that explains itself out.

What a caller was given is compiled once into `Grants`, a table by verb and kind, so that a decision is one look-up and
a few comparisons; whoever asks often keeps the grants for as long as the roles and bindings are the same objects. Deny
by default: what no scope covers is refused. A refusal says what came nearest and what would be enough.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace as replace_spec

from controlplane.machine.state import State
from controlplane.model.access import (
    ADMIN,
    ANYWHERE,
    BUILT_IN,
    GUARDED,
    NAMESPACED,
    AccessKind,
    AccessLimit,
    AccessSubject,
    AccessSubjectKind,
    RoleSpec,
    Rule,
    Verb,
)
from controlplane.model.types import record, replace

_VERBS = tuple(verb for verb in Verb if verb is not Verb.ANY)
_MEMBERS_ONLY = frozenset({AccessKind.SESSION, AccessKind.RELAY})
"""What certificates do; no role of people and programs covers it."""
_KINDS = tuple(kind for kind in AccessKind if kind is not AccessKind.ANY and kind not in _MEMBERS_ONLY)


@record
class Caller:
    """Whom a request comes from, as authentication found it."""

    name: str
    subjects: tuple[AccessSubject, ...] = ()
    """Under which bindings may name it."""
    roles: tuple[str, ...] = ()
    """That it has everywhere, whatever the bindings say: those of the node's tokens file or of its certificate."""
    only: str | None = None
    """The one name that those roles cover; None: every name."""
    limits: tuple[AccessLimit, ...] = ()
    """What its credential takes away: only what every one of them leaves."""

    def __str__(self) -> str:
        return str(self.subjects[0]) if self.subjects else self.name


def of_token(name: str, *, roles: Iterable[str] = (), user: str | None = None, groups: Iterable[str] = ()) -> Caller:
    subjects = [AccessSubject(kind=AccessSubjectKind.TOKEN, name=name)]
    if user is not None:
        subjects.append(AccessSubject(kind=AccessSubjectKind.USER, name=user))
    subjects += [AccessSubject(kind=AccessSubjectKind.GROUP, name=group) for group in sorted(groups)]
    return Caller(name=name, subjects=tuple(subjects), roles=tuple(sorted(set(roles))))


def of_user(user: str, *, groups: Iterable[str] = ()) -> Caller:
    """Of somebody whom another system knows, with no token of ours."""
    subjects = [AccessSubject(kind=AccessSubjectKind.USER, name=user)]
    subjects += [AccessSubject(kind=AccessSubjectKind.GROUP, name=group) for group in sorted(groups)]
    return Caller(name=user, subjects=tuple(subjects))


def limited(caller: Caller, limits: tuple[AccessLimit, ...]) -> Caller:
    return replace(caller, limits=(*caller.limits, *limits))


def of_member(kind: str, name: str) -> Caller:
    """The holder of a member's certificate: `host` or `node`. A host has its role for its own name alone."""
    return Caller(name=f"{kind} {name}", roles=(kind,), only=name if kind == "host" else None)


@record
class Question:
    """May somebody do this? Labels are the object's; None where they are not known yet: then any would do."""

    verb: Verb
    kind: AccessKind
    namespace: str | None = None
    name: str | None = None
    labels: Mapping[str, str] | None = None

    def __str__(self) -> str:
        """`declare MicroVM web/front`, `read MicroVM in namespace web`, `act Cluster`."""
        asked = f"{self.verb.value} {self.kind.value}"
        if self.name is None:
            return asked if self.namespace is None else f"{asked} in namespace {self.namespace}"
        # A namespace is in itself.
        inside = self.namespace is not None and self.kind is not AccessKind.NAMESPACE
        return f"{asked} {self.namespace}/{self.name}" if inside else f"{asked} {self.name}"


@record
class Scope:
    """Where one rule holds as one role was given. None: everywhere, of every name."""

    role: str
    binding: str | None
    """None: the role comes with the token or certificate itself."""
    namespaces: frozenset[str] | None = None
    names: frozenset[str] | None = None
    labels: tuple[tuple[str, str], ...] = ()

    def misses(self, question: Question) -> str | None:
        """Why `question` is outside; None where it is covered."""
        if self.namespaces is not None and question.namespace not in self.namespaces:
            return f"holds in namespace {', '.join(sorted(self.namespaces)) or 'none'} only"
        if self.names is not None and question.name not in self.names:
            return f"covers {', '.join(sorted(self.names))} only"
        if self.labels and question.labels is not None:
            for key, value in self.labels:
                if question.labels.get(key) != value:
                    return f"covers what is labelled {key}={value} only"
        return None

    def __str__(self) -> str:
        given = f"binding {self.binding}" if self.binding is not None else "the credential itself"
        return f"role {self.role}, given by {given},"


@record
class Decision:
    allowed: bool
    by: Scope | None = None
    """What allowed it."""
    near: tuple[str, ...] = ()
    """Of a refusal: what covers the verb and the kind, and why it does not cover this."""
    would_allow: str = ""
    """Of a refusal: the least that would be enough."""


class Grants:
    """All that one caller may do."""

    __slots__ = ("_scopes",)

    def __init__(self, given: Iterable[tuple[Rule, Scope]]) -> None:
        scopes: dict[tuple[Verb, AccessKind], list[Scope]] = {}
        for rule, scope in given:
            for pair in _pairs(rule, scope):
                scopes.setdefault(pair, []).append(scope)
        self._scopes = {pair: tuple(found) for pair, found in scopes.items()}

    def covers(self, question: Question) -> Scope | None:
        """The scope that allows it."""
        for scope in self._scopes.get((question.verb, question.kind), ()):
            if scope.misses(question) is None:
                return scope
        return None

    def any_of(self, verb: Verb, kind: AccessKind, *, namespace: str | None = None) -> bool:
        """Whether there may be something that it covers, in `namespace` or anywhere."""
        scopes = self._scopes.get((verb, kind), ())
        return any(namespace is None or each.namespaces is None or namespace in each.namespaces for each in scopes)

    def first_outside(self, others: Grants) -> tuple[Verb, AccessKind] | None:
        """A verb and a kind of which `others` may do something that this may not; None: there is nothing."""
        for (verb, kind), scopes in sorted(others._scopes.items()):
            mine = self._scopes.get((verb, kind), ())
            if not all(_within(part, mine) for scope in scopes for part in _parts(scope)):
                return verb, kind
        return None

    def decide(self, question: Question) -> Decision:
        """With its reasons: for refusals and for whoever asks."""
        if (scope := self.covers(question)) is not None:
            return Decision(allowed=True, by=scope)
        near = tuple(
            f"{scope} {scope.misses(question)}" for scope in self._scopes.get((question.verb, question.kind), ())
        )
        return Decision(allowed=False, near=near, would_allow=_least(question))


def grants(state: State, caller: Caller) -> Grants:
    """What `caller` may do by the roles and bindings of `state`."""
    return Grants(_limited(_given(state, caller), caller.limits))


def decide(state: State, caller: Caller, question: Question) -> Decision:
    return grants(state, caller).decide(question)


def given_to(state: State, caller: Caller) -> list[Scope]:
    """The roles of `caller`, each with how it was given."""
    only = frozenset({caller.only}) if caller.only is not None else None
    own = [Scope(role=role, binding=None, names=only) for role in caller.roles]
    subjects = set(map(str, caller.subjects))
    bound = [
        Scope(role=binding.spec.role, binding=name, namespaces=_limits(binding.spec.namespaces))
        for name, binding in sorted(state.role_bindings.items())
        if any(str(subject) in subjects for subject in binding.spec.subjects)
    ]
    return own + bound


def _given(state: State, caller: Caller) -> Iterator[tuple[Rule, Scope]]:
    for given in given_to(state, caller):
        for rule in _role(state, given.role).rules:
            yield (
                rule,
                Scope(
                    role=given.role,
                    binding=given.binding,
                    namespaces=_both(given.namespaces, _limits(rule.namespaces)),
                    names=_both(given.names, frozenset(rule.names) if rule.names else None),
                    labels=tuple(sorted(rule.labels.items())),
                ),
            )


def _limited(given: Iterable[tuple[Rule, Scope]], limits: tuple[AccessLimit, ...]) -> Iterator[tuple[Rule, Scope]]:
    """Less what each limit takes away."""
    for rule, scope in given:
        left, verbs = scope, set(_VERBS if Verb.ANY in rule.verbs else rule.verbs)
        for limit in limits:
            left = replace(left, namespaces=_both(left.namespaces, _limits(limit.namespaces)))
            verbs &= set(_VERBS if Verb.ANY in limit.verbs else limit.verbs)
        yield (replace_spec(rule, verbs=[verb for verb in _VERBS if verb in verbs]) if limits else rule), left


def _parts(scope: Scope) -> Iterator[Scope]:
    """`scope` as scopes of one namespace and one name each, where it names some."""
    for namespace in sorted(scope.namespaces) if scope.namespaces is not None else [None]:
        for name in sorted(scope.names) if scope.names is not None else [None]:
            yield replace(
                scope,
                namespaces=None if namespace is None else frozenset({namespace}),
                names=None if name is None else frozenset({name}),
            )


def _within(part: Scope, scopes: Iterable[Scope]) -> bool:
    """Whether one of `scopes` covers all of `part`."""
    return any(
        _covers(scope.namespaces, part.namespaces)
        and _covers(scope.names, part.names)
        and set(scope.labels) <= set(part.labels)
        for scope in scopes
    )


def _covers(wide: frozenset[str] | None, narrow: frozenset[str] | None) -> bool:
    return wide is None or (narrow is not None and narrow <= wide)


def _role(state: State, name: str) -> RoleSpec:
    if (built_in := BUILT_IN.get(name)) is not None:
        return built_in
    declared = state.roles.get(name)
    return declared.spec if declared is not None else RoleSpec()


def _limits(namespaces: Iterable[str]) -> frozenset[str] | None:
    named = frozenset(namespaces)
    return None if ANYWHERE in named else named


def _both(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _pairs(rule: Rule, scope: Scope) -> Iterator[tuple[Verb, AccessKind]]:
    verbs = _VERBS if Verb.ANY in rule.verbs else rule.verbs
    kinds = _KINDS if AccessKind.ANY in rule.kinds else rule.kinds
    for kind in kinds:
        if kind in _MEMBERS_ONLY and scope.binding is not None:
            continue
        # What is in no namespace is only covered where the scope has no limit.
        if kind not in NAMESPACED and scope.namespaces is not None:
            continue
        for verb in verbs:
            if kind in GUARDED and verb is not Verb.READ and scope.role != ADMIN:
                continue
            yield verb, kind


def _least(question: Question) -> str:
    if question.kind in _MEMBERS_ONLY:
        return "the certificate of the member that it is about"
    where = f" in namespace {question.namespace}" if question.namespace is not None else ""
    role = next((name for name in ("viewer", "provisioner", "operator", ADMIN) if _gives(name, question)), ADMIN)
    verb, kind = question.verb.value, question.kind.value
    return f"a binding of the built-in role {role}{where}, or of a role with a rule for {verb} on {kind}{where}"


def _gives(role: str, question: Question) -> bool:
    scope = Scope(role=role, binding=None)
    return Grants((rule, scope) for rule in BUILT_IN[role].rules).any_of(question.verb, question.kind)
