"""One PUT for every kind: rehearse the declaration when only that is asked for, else propose it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.http import dryrun, params, reads, writes
from controlplane.api.http.access import Asker, about_named, asker_of
from controlplane.api.http.answers import respond
from controlplane.api.http.auth import principal_of
from controlplane.api.http.services import Services, services_in
from controlplane.decide.access import Question
from controlplane.identity.principal import Principal
from controlplane.model.access import Verb
from controlplane.model.commands import (
    Declaration,
    DeclareHost,
    DeclareMicroVM,
    DeclareMicroVMGroup,
    DeclareNamespace,
    Precondition,
)
from controlplane.model.policies import KIND_DECLARED
from controlplane.model.types import Kind


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks, and what the headers and the query say of how."""

    services: Services
    actor: Principal
    asker: Asker
    when: Precondition
    key: str | None
    dry_run: bool

    def new_uid(self) -> str:
        """For the object, should it have to be made."""
        return self.services.ids.new()


async def _asked(
    request: Request,
    if_match: params.IfMatchHeader = None,
    if_none_match: params.IfNoneMatchHeader = None,
    key: params.IdempotencyKeyHeader = None,
    dry_run: params.DryRunParam = False,
) -> Asked:
    # One dependency for all of it: each one costs as much as the rest of a handler.
    return Asked(
        services=services_in(request),
        actor=await principal_of(request),
        asker=await asker_of(request),
        when=params.precondition(if_match, if_none_match),
        key=params.idempotency_key(key),
        dry_run=dry_run,
    )


Declaring = Annotated[Asked, Depends(_asked)]


async def declare(asked: Asked, command: Declaration, *, warnings: Sequence[str] = ()) -> Response:
    """The object with `warnings`, or what a dry run found. Raises ApiError and LogError."""
    services, actor = asked.services, asked.actor
    # The route's rule was about the labels that it has; this is about those that it is to have.
    for question in declares(command):
        await asked.asker.require(question)
    if asked.dry_run:
        state = await reads.snapshot(services)
        return respond(await dryrun.declare(services, actor, state, command, warnings), state)
    outcome, state = await writes.propose(services, actor, command, key=asked.key)
    return writes.answer_declared(state, command, outcome, warnings)


def declares(command: Declaration) -> Iterator[Question]:
    """What whoever declares this has to be allowed: of a group, also microVMs with its name and labels."""
    namespace = command.namespace if isinstance(command, DeclareMicroVM | DeclareMicroVMGroup) else None
    yield about_named(Verb.DECLARE, kind_of(command), namespace, command.name, command.labels)
    if isinstance(command, DeclareMicroVMGroup):
        yield about_named(Verb.DECLARE, Kind.MICROVM, namespace, command.name, command.labels)


def kind_of(command: Declaration) -> Kind:
    match command:
        case DeclareMicroVM():
            return Kind.MICROVM
        case DeclareMicroVMGroup():
            return Kind.MICROVM_GROUP
        case DeclareHost():
            return Kind.HOST
        case DeclareNamespace():
            return Kind.NAMESPACE
        case _:
            return KIND_DECLARED[type(command)]
