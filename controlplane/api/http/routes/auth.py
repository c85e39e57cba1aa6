"""What the caller, or somebody else, may do, and why."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from controlplane.api.http import access_views, params, problems, reads
from controlplane.api.http.access import Asking
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.decide import access
from controlplane.decide.access import Caller, Question
from controlplane.model.access import NAMESPACED, AccessKind, AccessSubject, AccessSubjectKind, Verb
from controlplane.model.types import SUBJECT_NAME_PATTERN

SUBJECT_PATTERN = rf"^(user|token|group)/{SUBJECT_NAME_PATTERN.removeprefix('^')}"

router = APIRouter(tags=["Access"], route_class=StrictRoute)


@router.get("/auth/whoami", response_model=access_views.WhoAmI)
async def whoami(asker: Asking, state: reads.Snapshot) -> Response:
    """Who this is, and every role that it has."""
    caller = asker.caller(state)
    return respond(access_views.whoami(asker.principal, caller, access.given_to(state, caller)), state)


@router.get("/auth/decision", response_model=access_views.AccessDecision)
async def decide(
    asker: Asking,
    state: reads.Snapshot,
    verb: Annotated[Verb, Query(description="What would be done.")] = Verb.READ,
    kind: Annotated[AccessKind, Query(description="With what.")] = AccessKind.MICROVM,
    namespace: params.NamespaceFilter = None,
    name: params.NameFilter = None,
    label: params.LabelFilter = [],  # noqa: B006
    as_: Annotated[
        str | None,
        Query(
            alias="as",
            pattern=SUBJECT_PATTERN,
            description="Of another, as `token/ci`: by its bindings alone, since what a tokens file gives is not known"
            " here. Needs to read role bindings.",
        ),
    ] = None,
) -> Response:
    """Whether something would be allowed: what allows it, or what is missing."""
    if Verb.ANY is verb or AccessKind.ANY is kind:
        raise problems.invalid("/query/verb" if verb is Verb.ANY else "/query/kind", "name one: `*` is for rules")
    caller = asker.caller(state)
    if as_ is not None:
        await asker.require(Question(verb=Verb.READ, kind=AccessKind.ROLE_BINDING))
        caller = _named(as_)
    inside = name if kind is AccessKind.NAMESPACE else namespace if kind in NAMESPACED else None
    question = Question(verb=verb, kind=kind, namespace=inside, name=name, labels=params.parse_labels(label))
    return respond(access_views.decision(caller, question, access.decide(state, caller, question)), state)


def _named(subject: str) -> Caller:
    kind, _, name = subject.partition("/")
    return Caller(name=name, subjects=(AccessSubject(kind=AccessSubjectKind(kind), name=name),))
