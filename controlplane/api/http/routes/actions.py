"""Verbs on a microVM, and the questions that only its host or its history can answer."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from controlplane.api.http import params, problems, reads, shapes, views, writes
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import Act, Action
from controlplane.ports import DriverError, HostUnreachableError

CONSOLE_LIMIT = 64 * 1024
CONSOLE_MAX = 1024 * 1024
OFFSET_HEADER = "Flintlock-Console-Offset"
_OFFSET_LIMIT = 2**53

router = APIRouter(tags=["MicroVMs"], route_class=StrictRoute)
_ONE = "/namespaces/{namespace}/microvms/{name}"


@router.post(_ONE + "/actions/{action}", status_code=202, response_model=shapes.OperationStarted)
async def act_on_microvm(
    services: With,
    actor: Actor,
    namespace: params.NamespaceParam,
    name: params.NameParam,
    action: Action,
    revision: params.ExpectedRevision,
    key: params.Key,
) -> Response:
    """`start`, `stop`, `pause` and `resume` change the intent; `repair` and `restart` ask the host to act."""
    command = Act(namespace=namespace, name=name, action=action, revision=revision)
    return await writes.act(services, actor, command, key=key)


@router.get(_ONE + "/why", response_model=shapes.Why)
async def why(
    services: With, state: reads.Snapshot, namespace: params.NamespaceParam, name: params.NameParam
) -> Response:
    """Why it is where it is, or nowhere: the decision and every bid; and what a lost host means for it."""
    limits, now_ms = services.settings.failover, services.clock.now_ms()
    return respond(views.why(state, reads.microvm(state, namespace, name), limits, now_ms), state)


@router.get(
    _ONE + "/console",
    response_class=Response,
    responses={
        200: {
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": {OFFSET_HEADER: {"description": "Where to read on.", "schema": {"type": "integer"}}},
        }
    },
)
async def console(
    services: With,
    state: reads.Snapshot,
    namespace: params.NamespaceParam,
    name: params.NameParam,
    offset: Annotated[
        int, Query(ge=-_OFFSET_LIMIT, le=_OFFSET_LIMIT, description="Bytes since creation; negative: from the end.")
    ] = 0,
    limit: Annotated[int, Query(ge=1, le=CONSOLE_MAX, description="Bytes.")] = CONSOLE_LIMIT,
) -> Response:
    """What the guest wrote to its serial console, as its host has it."""
    vm = reads.microvm(state, namespace, name)
    if vm.placement is None:
        message = f"microVM {namespace}/{name} has no host yet, so it has no console"
        raise problems.problem("not_placed", message, problems.FieldError(pointer="/name", message=message))
    host = vm.placement.host
    try:
        following, data = await services.agents.console(
            host, vm.meta.uid, offset=offset, limit=limit, timeout_s=services.settings.console_timeout_s
        )
    except (HostUnreachableError, TimeoutError) as error:
        detail = f"host {host} cannot be asked" + (f": {error}" if str(error) else "")
        raise problems.problem("host_unreachable", detail, retry_after_s=2) from error
    except DriverError as error:
        raise problems.problem("driver_error", f"host {host}: {error.code}: {error.message}") from error
    return Response(data, media_type="text/plain", headers={OFFSET_HEADER: str(following)})
