"""Access to the API: every request passes `Access.enter` before its handler, by the rule of its route.

What a caller may do is compiled once and kept while roles and bindings are the same objects in the state. What this
replica's state allows is allowed. What it refuses is asked once more of the newest state, so that a role that was given
a moment ago at another node counts here at once; only then is it refused (docs/adr/0131).

Handlers that answer with many objects, or are about what a body names, take an `Asker` and ask for each.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, cast

import structlog
from fastapi import Depends
from starlette.requests import Request
from starlette.types import Scope as AsgiScope

from controlplane.api.http import problems
from controlplane.api.http.access_rules import About, Needs
from controlplane.decide import access
from controlplane.decide.access import Caller, Grants, Question
from controlplane.identity.principal import Principal
from controlplane.machine.events import Declared
from controlplane.machine.state import State
from controlplane.machine.table import Table
from controlplane.model.access import NAMESPACED, AccessKind, Verb
from controlplane.model.api_tokens import ApiToken
from controlplane.model.resources import Meta, Operation, Role, RoleBinding
from controlplane.model.types import Kind
from controlplane.ports import StateReader

_KEPT = 1024
"""Callers whose grants are kept."""
_FRESH_S = 5.0
_NONE: Mapping[str, str] = {}
KIND_OF = {kind: AccessKind(kind.value) for kind in Kind}
"""What rules call a declared kind."""
ASKER = "asker"
"""Where in the state of a request its Asker is."""
_log = structlog.get_logger("api.access")


class Access:
    """Decides for one API. `reader` is its replica."""

    def __init__(self, reader: StateReader) -> None:
        self._reader = reader
        self._roles: Table[Role] | None = None
        self._bindings: Table[RoleBinding] | None = None
        self._tokens: Table[ApiToken] | None = None
        self._grants: dict[Principal, Grants] = {}

    async def enter(self, scope: AsgiScope, needs: Needs, path: Mapping[str, str]) -> None:
        """Raises ApiError 403 unless the route may be asked; else leaves an Asker for its handler."""
        if needs.about is About.OPEN:
            return
        state: dict[str, object] = scope["state"]
        asker = state[ASKER] = Asker(self, cast("Principal", state["principal"]))
        match needs.about:
            case About.WHOLE:
                await asker.require(Question(verb=needs.verb, kind=needs.kind))
            case About.ONE:
                await asker.require(self._about_one(needs, path))
            case About.SOME:
                await asker.require_any(needs.verb, needs.kind)
            case _:  # the handler asks
                pass

    def grants(self, principal: Principal, state: State) -> Grants:
        if (
            state.roles is not self._roles
            or state.role_bindings is not self._bindings
            or state.api_tokens is not self._tokens
            or len(self._grants) > _KEPT
        ):
            self._roles, self._bindings, self._tokens = state.roles, state.role_bindings, state.api_tokens
            self._grants = {}
        found = self._grants.get(principal)
        if found is None:
            found = self._grants[principal] = access.grants(state, caller_of(principal, state))
        return found

    def here(self) -> State:
        return self._reader.state

    async def newest(self) -> State:
        """Raises NoLeaderError."""
        return await self._reader.fresh(timeout_s=_FRESH_S)

    def _about_one(self, needs: Needs, path: Mapping[str, str]) -> Question:
        namespace, name = path.get("namespace"), path["name"]
        if needs.kind is AccessKind.NAMESPACE:
            namespace = name
        labels = labels_of(self._reader.state, needs.kind, namespace, name)
        if labels is None and needs.verb is not Verb.DECLARE:
            labels = _NONE
        # Of what is to be made, the handler asks again, with the labels that it is to have.
        return Question(verb=needs.verb, kind=needs.kind, namespace=namespace, name=name, labels=labels)


@dataclass(frozen=True, slots=True)
class Asker:
    """One caller, during one request."""

    access: Access
    principal: Principal

    def caller(self, state: State | None = None) -> Caller:
        return caller_of(self.principal, state or self.access.here())

    def grants(self, state: State | None = None) -> Grants:
        """By `state`, or by what this replica has now."""
        return self.access.grants(self.principal, state or self.access.here())

    def allows(self, question: Question, state: State | None = None) -> bool:
        """By `state`, or by what this replica has now."""
        return self.grants(state).covers(question) is not None

    def sees(self, meta: Meta, state: State | None = None) -> bool:
        return self.allows(about(Verb.READ, meta), state)

    def sees_operation(self, operation: Operation, state: State) -> bool:
        return self.allows(about_operation(operation, state), state)

    async def require(self, question: Question) -> None:
        """Raises ApiError 403, and NoLeaderError where only a newer state could tell."""
        if self.allows(question):
            return
        decision = self.access.grants(self.principal, await self.access.newest()).decide(question)
        if not decision.allowed:
            raise refusal(self.caller(), question, decision)

    async def require_any(self, verb: Verb, kind: AccessKind) -> None:
        """That there may be something of `kind` that the caller may `verb`. Raises as `require`."""
        if self.grants().any_of(verb, kind):
            return
        grants = self.access.grants(self.principal, await self.access.newest())
        if not grants.any_of(verb, kind):
            question = Question(verb=verb, kind=kind)
            raise refusal(self.caller(), question, grants.decide(question))

    async def require_for(self, verb: Verb, meta: Meta) -> None:
        await self.require(about(verb, meta))


async def asker_of(request: Request) -> Asker:
    return cast("Asker", request.scope["state"][ASKER])


Asking = Annotated[Asker, Depends(asker_of)]


def caller_of(principal: Principal, state: State) -> Caller:
    """The caller by `state`. Whose token was revoked since has nothing left."""
    if principal.token is None:
        return access.of_user(principal.user or principal.name, groups=principal.groups)
    known = access.of_token(principal.token, roles=principal.roles, user=principal.user, groups=principal.groups)
    if principal.token_uid is None:
        return known
    token = state.api_tokens.get(principal.token)
    if token is None or token.uid != principal.token_uid:
        return Caller(name=principal.name)
    return access.limited(known, token.limits)


def refusal(who: Caller, question: Question, decision: access.Decision) -> problems.ApiError:
    """The 403 that says who, what and where, and what would be enough."""
    _log.warning("access_refused", actor=who.name, verb=question.verb.value, kind=question.kind.value)
    near = f": {'; '.join(decision.near)}" if decision.near else ""
    return problems.problem(
        "forbidden",
        f"{who} may not {question}{near}",
        hint=f"It needs {decision.would_allow}. `flintctl auth why-not` explains it.",
    )


def about(verb: Verb, meta: Meta) -> Question:
    """A question about an object that is there."""
    return _question(verb, KIND_OF[meta.kind], meta.namespace, meta.name, meta.labels)


def about_operation(operation: Operation, state: State) -> Question:
    """An operation is seen by whoever could see operations on what it is about."""
    target = operation.target
    kind = KIND_OF[target.kind]
    labels = labels_of(state, kind, target.namespace, target.name)
    return _question(Verb.READ, AccessKind.OPERATION, target.namespace, target.name, labels or {})


def about_object(verb: Verb, subject: Declared, state: State) -> Question:
    """Of whatever an event is about."""
    return about_operation(subject, state) if isinstance(subject, Operation) else about(verb, subject.meta)


def about_named(verb: Verb, kind: Kind, namespace: str | None, name: str, labels: Mapping[str, str] | None) -> Question:
    """A question about what may or may not be there."""
    return _question(verb, KIND_OF[kind], namespace, name, labels)


def _question(
    verb: Verb, kind: AccessKind, namespace: str | None, name: str, labels: Mapping[str, str] | None
) -> Question:
    inside = name if kind is AccessKind.NAMESPACE else namespace if kind in NAMESPACED else None
    return Question(verb=verb, kind=kind, namespace=inside, name=name, labels=labels)


def labels_of(state: State, kind: AccessKind, namespace: str | None, name: str) -> Mapping[str, str] | None:
    """Of what is declared under that name; None if nothing is."""
    if kind is AccessKind.API_TOKEN:
        return _NONE if name in state.api_tokens else None
    found = state.named(Kind(kind.value), namespace, name)
    return found.meta.labels if found is not None else None
