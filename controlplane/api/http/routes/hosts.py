"""Hosts: admit an agent by declaring its host, read, delete, list.

An agent that nobody declared appears in lists with `declared` false, and alone only when asked for.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from controlplane.api.http import declaring, params, reads, shapes, views, writes
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.declarations import HostBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, With
from controlplane.model.commands import ConfirmOff, Delete
from controlplane.model.types import Kind

router = APIRouter(tags=["Hosts"], route_class=StrictRoute)


@router.put(
    "/hosts/{name}", response_model=shapes.DeclaredHost | shapes.DryRun, responses={201: {"model": shapes.DeclaredHost}}
)
async def declare_host(
    asked: declaring.Declaring,
    name: params.NameParam,
    body: HostBody,
) -> Response:
    """Create or change a host."""
    command = body.command(name, uid=asked.new_uid(), when=asked.when)
    return await declaring.declare(asked, command)


@router.get("/hosts/{name}", response_model=shapes.HostResource)
async def read_host(
    state: reads.Snapshot,
    name: params.NameParam,
    include_pending: Annotated[bool, Query(description="Also an agent's host that nobody declared.")] = False,
) -> Response:
    """Read a host."""
    return respond(views.host(state, reads.host(state, name, include_pending=include_pending)), state)


@router.delete("/hosts/{name}", response_model=shapes.HostResource)
async def delete_host(
    services: With,
    actor: Actor,
    name: params.NameParam,
    revision: params.ExpectedRevision,
    key: params.Key,
    reason: params.ReasonParam = "",
) -> Response:
    """Delete a host."""
    command = Delete(kind=Kind.HOST, name=name, revision=revision, reason=reason)
    return await writes.remove(services, actor, command, key=key)


@router.post("/hosts/{name}/actions/confirm-fenced", response_model=shapes.HostResource)
async def confirm_fenced(
    services: With, actor: Actor, name: params.NameParam, revision: params.ExpectedRevision, key: params.Key
) -> Response:
    """Say that a lost host is certainly off, so that whatever its microVMs' policies allow is restarted elsewhere.

    A suspect host, to which the leader may still grant, is first detached and then fenced within seconds. Nothing
    checks the word: if the host runs after all, so do two copies of what is restarted.
    """
    command = ConfirmOff(host=name, revision=revision)
    _, state = await writes.propose(services, actor, command, key=key)
    return respond(views.host(state, reads.host(state, name, include_pending=False)), state)


@router.get("/hosts", response_model=shapes.HostList)
async def list_hosts(state: reads.Snapshot, wanted: reads.Wanted) -> Response:
    """List them in order of name."""
    items, following = wanted.page(state.hosts)
    return await respond_list(items, views.host, state, following)
