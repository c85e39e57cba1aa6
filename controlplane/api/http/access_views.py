"""Grants and decisions to documents."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controlplane.api.http.shape import Shape
from controlplane.api.http.times import Timestamp, iso
from controlplane.decide.access import Caller, Decision, Question, Scope
from controlplane.identity.principal import Principal
from controlplane.model.access import AccessLimit


class GivenShape(Shape):
    """A role, and how it was given."""

    role: str
    binding: str | None = Field(description="Null: it comes with the credential itself.")
    namespaces: list[str] | None = Field(description="Null: everywhere.")


class LimitShape(Shape):
    """Only these verbs, in these namespaces."""

    verbs: list[str]
    namespaces: list[str]


class AccessSubjectShape(Shape):
    kind: Literal["user", "token", "group"]
    name: str


class WhoAmI(Shape):
    name: str = Field(description="The actor of whatever it changes.")
    subjects: list[AccessSubjectShape] = Field(description="Under which role bindings may name it.")
    roles: list[GivenShape]
    limits: list[LimitShape] = Field(description="What the credential takes away from them: all of these hold.")
    expires_at: Timestamp | None = Field(description="When the credential ends; null: when somebody takes it away.")


class AccessDecision(Shape):
    """What was asked, the answer, and its reasons."""

    who: str
    verb: str
    kind: str
    namespace: str | None
    name: str | None
    labels: dict[str, str]
    allowed: bool
    by: GivenShape | None = Field(description="What allows it.")
    near: list[str] = Field(description="Of a refusal: what covers the verb and the kind, and why not this.")
    would_allow: str = Field(description="Of a refusal: the least that would be enough; else empty.")


def whoami(principal: Principal, caller: Caller, roles: list[Scope]) -> WhoAmI:
    return WhoAmI(
        name=principal.name,
        subjects=[AccessSubjectShape(kind=each.kind.value, name=each.name) for each in caller.subjects],
        roles=[_given(each) for each in roles],
        limits=[limit_shape(each) for each in caller.limits],
        expires_at=iso(principal.expires_at),
    )


def decision(caller: Caller, question: Question, made: Decision) -> AccessDecision:
    return AccessDecision(
        who=str(caller),
        verb=question.verb.value,
        kind=question.kind.value,
        namespace=question.namespace,
        name=question.name,
        labels=dict(question.labels or {}),
        allowed=made.allowed,
        by=_given(made.by) if made.by is not None else None,
        near=list(made.near),
        would_allow=made.would_allow,
    )


def limit_shape(limit: AccessLimit) -> LimitShape:
    return LimitShape(verbs=[each.value for each in limit.verbs], namespaces=limit.namespaces)


def _given(scope: Scope) -> GivenShape:
    namespaces = sorted(scope.namespaces) if scope.namespaces is not None else None
    return GivenShape(role=scope.role, binding=scope.binding, namespaces=namespaces)
