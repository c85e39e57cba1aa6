"""The log that replicates the state: this node's view of it, its members, and who leads.

A change of the members goes to the leader, waits there for at most `timeout_s`, and can be repeated: what is so already
is done. A refusal (409 `membership_refused`) changed nothing and says what to do.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Literal

from fastapi import APIRouter, Path, Query
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.responses import Response

from controlplane.api.http import cluster_shapes, raft_views
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, Services, With
from controlplane.model.commands import RevokeCertificates
from controlplane.model.credentials import MemberKind
from controlplane.ports import LogError, Member
from controlplane.settings import split_address

NODE_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$"

router = APIRouter(tags=["Raft"], route_class=StrictRoute)


def _check_address(address: str) -> str:
    split_address(address)
    return address


Address = Annotated[str, Field(max_length=255), AfterValidator(_check_address)]
NodeParam = Annotated[str, Path(alias="node", pattern=NODE_PATTERN, description="The node's id.")]
Timeout = Annotated[
    float,
    Query(alias="timeout_s", ge=0.1, le=60, allow_inf_nan=False, description="How long to wait for it to be done."),
]


class AddMember(BaseModel):
    """A node to be added. As a `voter` it is promoted once it has caught up; until then it is a learner."""

    model_config = ConfigDict(extra="forbid")

    node: Annotated[str, Field(pattern=NODE_PATTERN)]
    address: Address = Field(description="`HOST:PORT` at which the other nodes reach its log (raft.listen/advertise).")
    role: Literal["voter", "learner"] = "voter"
    api: Address | None = Field(default=None, description="`HOST:PORT` of its API.")
    gateway: Address | None = Field(default=None, description="`HOST:PORT` of its gateway for agents.")


class TransferLeadership(BaseModel):
    model_config = ConfigDict(extra="forbid")

    target: Annotated[str, Field(pattern=NODE_PATTERN)] | None = Field(
        default=None, description="The node that shall lead; null: the best of the voters."
    )


@router.get("/raft", response_model=cluster_shapes.LogShape)
async def read_raft(services: With) -> Response:
    """This node's view of the log. Answered without a leader, too; 503 where the log itself does not answer."""
    return respond(raft_views.log_shape(await services.log.status()), services.reader.state)


@router.get("/raft/members", response_model=cluster_shapes.MemberList)
async def list_members(services: With) -> Response:
    """The members by the newest configuration in this node's log."""
    return await _members(services)


@router.post("/raft/members", response_model=cluster_shapes.MemberList)
async def add_member(services: With, body: AddMember, timeout_s: Timeout = 30.0) -> Response:
    """Add a node as a learner and, unless it shall stay one, promote it once it has caught up.

    A member that is there already gets the given addresses. When a new voter does not catch up in time it stays a
    learner, and the refusal says how far it is: repeat the request to go on waiting.
    """
    member = Member(body.node, body.address, body.role, body.api or "", body.gateway or "")
    await services.members.add_member(member, timeout_s=timeout_s)
    return await _members(services)


@router.post("/raft/members/{node}/actions/promote", response_model=cluster_shapes.MemberList)
async def promote_member(services: With, node: NodeParam, timeout_s: Timeout = 30.0) -> Response:
    """Make a learner a voter once it has caught up."""
    await services.members.promote_member(node, timeout_s=timeout_s)
    return await _members(services)


@router.delete("/raft/members/{node}", response_model=cluster_shapes.MemberList)
async def remove_member(services: With, actor: Actor, node: NodeParam, timeout_s: Timeout = 30.0) -> Response:
    """Take a node out for good: its id is never accepted again."""
    await services.members.remove_member(node, timeout_s=timeout_s)
    # Where this very node was removed the log takes nothing from it any more; its members refuse it anyway.
    with suppress(LogError):
        command = RevokeCertificates(kind=MemberKind.NODE, name=node, reason="the node was removed")
        await services.proposer.propose(command, actor=actor.name, timeout_s=timeout_s)
    return await _members(services)


@router.post("/raft/actions/transfer-leadership", response_model=cluster_shapes.Leadership)
async def transfer_leadership(services: With, body: TransferLeadership, timeout_s: Timeout = 10.0) -> Response:
    """Hand the leadership over without an election timeout."""
    leader = await services.members.transfer_leadership(body.target, timeout_s=timeout_s)
    return respond(cluster_shapes.Leadership(leader=leader), services.reader.state)


async def _members(services: Services) -> Response:
    log = await services.log.status()
    document = cluster_shapes.MemberList(
        items=[raft_views.member_shape(member) for member in log.members],
        configuration_index=log.configuration_index,
        committed=log.configuration_index <= log.commit_index,
        incarnation=log.incarnation,
    )
    return respond(document, services.reader.state)
