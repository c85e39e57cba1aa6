"""Agents, from the node's side: leases for them and questions to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.model.resources import Bid
from controlplane.model.spec import MicroVMSpec


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


class AgentLink(Protocol):
    """Questions to agents, whatever node they dialled."""

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        """The host's bid for each item, by uid. Raises HostUnreachableError."""
        ...

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        """(next offset, bytes). Raises HostUnreachableError, DriverError."""
        ...

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        """Sessions at all nodes that answered, and the nodes that did not."""
        ...
