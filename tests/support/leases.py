"""A keeper of leases that grants as it is told, and remembers what it was asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from controlplane.agent.lease import NO_LEASE, Standing
from controlplane.ports import Grant, Heartbeat, NoLeaderError


class FakeKeeper:
    """Implements `ports.LeaseGrantor`. Every heartbeat is granted, but those of `refused` hosts."""

    def __init__(self, *, leads: bool = True, ttl_s: float = 10.0) -> None:
        self.leads = leads
        self.ttl_s = ttl_s
        self.refused: set[str] = set()
        self.asked: list[list[Heartbeat]] = []

    async def grant(self, asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        if not self.leads:
            raise NoLeaderError("this node does not lead")
        self.asked.append(list(asked))
        return [
            Grant(host=each.host, session=each.session, sequence=each.sequence, ttl_s=self.ttl_s, grace_s=2.0)
            for each in asked
            if each.host not in self.refused
        ]


class NoLease:
    """A host's lease that was never granted."""

    def standing(self, driver: str) -> Standing:
        return NO_LEASE

    def without_since_ms(self, driver: str) -> int:
        return 0

    def problems(self) -> Mapping[str, str]:
        return {}
