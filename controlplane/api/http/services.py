"""What handlers work with: the ports, handed to each by dependency."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from controlplane.api.http import problems
from controlplane.api.http.auth import principal_of
from controlplane.api.http.releases import Releases
from controlplane.api.http.settings import ApiSettings
from controlplane.identity.principal import Principal
from controlplane.machine.state import State
from controlplane.model.gc import Trigger
from controlplane.model.resources import Host
from controlplane.ports import (
    AgentLink,
    BackupStatus,
    Clock,
    Ids,
    Log,
    LogAdmin,
    NodeLink,
    PlanItem,
    Proposer,
    SnapshotSource,
    StateReader,
)
from controlplane.ports.issuance import Issuer
from controlplane.ports.secrets import Vault


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    reader: StateReader
    proposer: Proposer
    agents: AgentLink
    nodes: NodeLink
    log: Log
    members: LogAdmin
    snapshots: SnapshotSource
    forecast: Callable[[State, Host], Sequence[PlanItem]]
    """What the agent of a host would do if it came back as it was last known."""
    backup: Callable[[], BackupStatus | None]
    gc_refused: Counter[Trigger]
    """Collections that were refused to this node, whoever asked for them."""
    clock: Clock
    ids: Ids
    settings: ApiSettings
    releases: Releases
    """Of the Terraform provider."""
    signer: Issuer | None = None
    """None where this node cannot sign certificates."""
    vault: Vault | None = None
    """None where this node cannot seal secrets."""
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server shuts down: whoever only waits answers at once."""


def services_in(request: Request) -> Services:
    return cast("Services", request.app.state.services)


async def services_of(request: Request) -> Services:
    return services_in(request)


def signer_of(services: Services) -> Issuer:
    """Raises ApiError."""
    if services.signer is None:
        raise problems.problem("no_authority", "this node has no key ring: its settings have no `authority`")
    return services.signer


With = Annotated[Services, Depends(services_of)]
Actor = Annotated[Principal, Depends(principal_of)]
