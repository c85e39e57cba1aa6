"""What the edges and the runners of a front stand on: one replica of the state, fed and written through one log."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Self

from controlplane.bootstrap.process import settle_collector
from controlplane.bootstrap.raft import socket_path
from controlplane.consensus import LogClient
from controlplane.decide.breaker import FailoverLimits
from controlplane.model.gc import Trigger
from controlplane.reconcile.ledger import Ledger
from controlplane.replica import Replica
from controlplane.replica.addresses import AddressBook
from controlplane.settings import NodeSettings
from controlplane.system import SystemClock, Ulids


@dataclass(frozen=True, slots=True, kw_only=True)
class Core:
    settings: NodeSettings
    clock: SystemClock
    ids: Ulids
    log: LogClient
    replica: Replica
    addresses: AddressBook
    limits: FailoverLimits
    ledger: Ledger = field(default_factory=Ledger)
    """Of the leases that this node granted."""
    gc_refused: Counter[Trigger] = field(default_factory=Counter[Trigger])

    @classmethod
    def of(cls, settings: NodeSettings) -> Self:
        clock, ids = SystemClock(), Ulids()
        log = LogClient(socket_path(settings))
        replica = Replica(log, cluster_id=settings.cluster_id, clock=clock, ids=ids, settle=settle_collector)
        return cls(
            settings=settings,
            clock=clock,
            ids=ids,
            log=log,
            replica=replica,
            addresses=AddressBook(
                lambda: replica.status,
                api={settings.node: settings.http.address, **settings.http.peers},
                gateway={settings.node: settings.gateway.address, **settings.gateway.peers},
            ),
            limits=FailoverLimits(
                max_unhealthy=settings.failover.max_unhealthy,
                window_s=settings.failover.window_s,
                per_round=settings.failover.per_round,
            ),
        )

    def is_leader(self) -> bool:
        return self.replica.is_leader

    def leading_term(self) -> int | None:
        """None: another node leads, or nobody that this one knows of."""
        reign = self.replica.reign
        return reign.term if reign is not None else None
