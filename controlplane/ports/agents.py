"""Agents and other nodes, from a node's side: leases for hosts, and questions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.model.resources import Bid
from controlplane.model.spec import MicroVMSpec
from controlplane.ports.host import VMDefinition
from controlplane.ports.plan import PlanItem
from controlplane.ports.replica import Contact


class HostUnreachableError(Exception):
    """The host's agent has no session anywhere that can be asked now."""


@dataclass(frozen=True, slots=True)
class BidRequestItem:
    uid: str
    spec: MicroVMSpec


@dataclass(frozen=True, slots=True)
class Presence:
    """A session that a node holds, and how long ago its agent was last heard."""

    node: str
    host: str
    session: str
    last_heartbeat_age_s: float


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a session asks a lease for."""

    host: str
    session: str
    sequence: int


@dataclass(frozen=True, slots=True)
class Grant:
    """A lease for the session that sent the heartbeat; it ends `ttl_s` after that was sent."""

    host: str
    session: str
    sequence: int
    ttl_s: float
    grace_s: float


class LeaseGrantor(Protocol):
    """Who grants: on the leader, that node's keeper of leases; elsewhere, the way to it."""

    async def grant(self, asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        """Grants for those of `asked` that may have one; what is refused is left out. Raises NoLeaderError."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeView:
    """What a node believes of the cluster."""

    contact: Contact
    revision: int
    """Of its replica."""
    waits_s: float | None = None
    """On the leader of a restored log: until every lease of the lost history has ended, at most."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a host was told to run, and what it has carried out of it."""

    vm: VMDefinition
    repair_seq: int
    restart_seq: int


class NodeLink(Protocol):
    """Questions to nodes."""

    async def views(self, *, timeout_s: float) -> Mapping[str, NodeView | str]:
        """What every node believes, this one included, or why it could not be asked. Raises nothing."""
        ...


class AgentLink(Protocol):
    """Questions to agents, whatever node they dialled."""

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        """The host's bid for each item, by uid. Raises HostUnreachableError."""
        ...

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        """(next offset, bytes). Raises HostUnreachableError, DriverError."""
        ...

    async def plan(self, host: str, *, timeout_s: float) -> Sequence[PlanItem]:
        """What the host's agent would do next if it had a lease. Raises HostUnreachableError, DriverError."""
        ...

    async def definition(self, host: str, uid: str, *, timeout_s: float) -> Told:
        """What the host was told to run as `uid`, whoever knows of it. Raises HostUnreachableError, DriverError."""
        ...

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        """Sessions at all nodes that answered, and the nodes that did not."""
        ...
