"""What runs on simulated hosts now, by their drivers' own files: the witness that no microVM runs twice."""

from __future__ import annotations

from controlplane.cli.dev.cluster import DevCluster
from controlplane.drivers.simulated import lease
from controlplane.drivers.simulated.driver import moment
from controlplane.drivers.simulated.store import Store
from controlplane.model.resources import ObservedPower


def running(cluster: DevCluster) -> dict[str, list[str]]:
    """Names of microVMs, and the hosts on which each runs as the host's lease leaves it."""
    found: dict[str, list[str]] = {}
    for host in cluster.layout.plan.hosts:
        store = Store(cluster.layout.driver_state(host.name))
        try:
            rows = [lease.under(row, store.lease(), moment()).row for row in store.all()]
        finally:
            store.close()
        for row in rows:
            if row.power is ObservedPower.RUNNING:
                found.setdefault(row.name or row.native_id, []).append(host.name)
    return found
