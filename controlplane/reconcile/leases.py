"""The keeper of leases: on the node that leads, whether a host that was heard may run on (docs/adr/0100).

The order of things is the safety of all of it. A heartbeat came first; then a round of the quorum confirmed that this
node leads, so no other node had begun to lead when the heartbeat was sent, and whoever leads next counts its waits from
later than that. The replica has applied what was committed by then, so a host that was detached is known to be. Then,
in one turn of the event loop, the state and the ledger are looked at, the time is noted, and the answer is made: a
lease that ends, by the host's clock, before anybody who waits from the noted time says that it has.

After a restore nothing is granted before the hosts of the lost history were waited for (docs/adr/0103): the state may
let two hosts run what only one of them may.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from controlplane.machine.state import State
from controlplane.model.resources import Host
from controlplane.ports import Clock, Grant, Heartbeat, NoLeaderError, Reign
from controlplane.reconcile.ledger import LEASED, Ledger
from controlplane.settings import LeaseSettings


class Leadership(Protocol):
    """This node's replica, and the proof that the node leads."""

    @property
    def state(self) -> State: ...

    async def confirm_leading(self, *, timeout_s: float) -> Reign:
        """In what this node led after the call began; `state` has everything committed until then.

        Raises NoLeaderError.
        """
        ...


class LeaseKeeper:
    """Implements `ports.LeaseGrantor`."""

    def __init__(self, leadership: Leadership, clock: Clock, ledger: Ledger, lease: LeaseSettings) -> None:
        self._leadership = leadership
        self._clock = clock
        self._ledger = ledger
        self._lease = lease

    async def grant(self, asked: Sequence[Heartbeat], *, timeout_s: float) -> Sequence[Grant]:
        reign = await self._leadership.confirm_leading(timeout_s=timeout_s)
        # Nothing is awaited from here to the answer.
        if reign.term != self._ledger.term:
            raise NoLeaderError(f"this node leads in term {reign.term}, and has not begun to count the leases of that")
        state, now_s = self._leadership.state, self._clock.monotonic_s()
        if reign.incarnation > state.incarnation:
            return []
        return [grant for each in asked if (grant := self._answer(each, state.hosts.get(each.host), now_s)) is not None]

    def _answer(self, heartbeat: Heartbeat, host: Host | None, now_s: float) -> Grant | None:
        if host is None or host.session != heartbeat.session:
            return None
        self._ledger.hear(heartbeat.host, now_s)
        if host.phase not in LEASED or not host.lease_ttl_ms or self._ledger.is_detaching(host):
            return None
        self._ledger.grant(heartbeat.host, now_s)
        return Grant(
            host=heartbeat.host,
            session=heartbeat.session,
            sequence=heartbeat.sequence,
            ttl_s=min(self._lease.ttl_s, host.lease_ttl_ms / 1000),
            grace_s=self._lease.grace_s,
        )
