"""A node's front process: the edges and the reconcilers, over one replica of the state.

`core` is what all of them stand on, `edges` opens the servers, `runners` lists what goes on by itself; here is the
order in which they start and end.
"""

from __future__ import annotations

import asyncio
import sys

import uvloop

from controlplane.api.gateway.server import GatewayError
from controlplane.api.http.token_uses import TokenUses
from controlplane.bootstrap.core import Core
from controlplane.bootstrap.edges import open_app, open_gateway, open_server, open_snapshots
from controlplane.bootstrap.process import StartError, patiently, run_child
from controlplane.bootstrap.runners import (
    announcer,
    auditors,
    certifiers,
    open_authority,
    open_backups,
    open_ring,
    reconcilers,
    resealers,
)
from controlplane.identity.reloading import follow
from controlplane.model.commands import UnknownEntryError
from controlplane.reconcile.hostwatch import HostWatch
from controlplane.settings import NodeSettings
from controlplane.supervisor import STOP_GRACE_S
from controlplane.vault.vault import ClusterVault

API_GRACE_S = STOP_GRACE_S - 3.0
"""For writes in flight; the rest is for saying goodbye to agents and nodes before the parent's patience ends."""
REFUSALS = (GatewayError, StartError, UnknownEntryError)


async def run_front(settings: NodeSettings) -> None:
    core = Core.of(settings)
    replica = core.replica
    ring = open_ring(settings)
    issuer, authority = open_authority(core, ring)
    vault = ClusterVault(replica, replica, ring) if ring is not None else None
    watch = HostWatch(replica, replica, core.clock, core.ledger, reign=lambda: replica.reign, lease=settings.lease)
    gateway = open_gateway(core, watch, issuer, vault)
    snapshots, token_uses = open_snapshots(core), TokenUses(replica)
    backups = open_backups(core, snapshots)
    app = open_app(core, gateway, snapshots, backups, issuer, vault, token_uses)
    http = open_server(core, app, API_GRACE_S)
    async with asyncio.TaskGroup() as tasks:
        for runner in (
            replica.run(),
            announcer(core),
            token_uses.run(),
            follow(settings.tls, http.reload_tls),
            *reconcilers(core, gateway.link),
            *certifiers(core, issuer, authority),
            *resealers(core, vault),
            *auditors(core, app.state.trail),
            *([backups.run()] if backups is not None else ()),
        ):
            tasks.create_task(runner)
        watching: asyncio.Task[None] | None = None
        try:
            await patiently(gateway.start, GatewayError)
            # Two fronts of one node must not both grant leases, each counting only its own: while one that ends has the
            # gateway's port, this one neither grants nor waits.
            watching = tasks.create_task(watch.run())
            try:
                await patiently(http.start, OSError)
            except OSError as error:
                raise StartError(f"http.listen: {settings.http.listen}: {error}") from error
            await asyncio.Event().wait()
        finally:
            # Writes in flight still need the replica, so the edges go first; when the whole cluster stops, no log
            # answers them any more.
            replica.close(API_GRACE_S / 2)
            await http.stop()
            if watching is not None:
                watching.cancel()
                await asyncio.wait([watching])
            await gateway.stop()
            await core.log.aclose()


if __name__ == "__main__":
    sys.exit(run_child("front", run_front, REFUSALS, new_loop=uvloop.new_event_loop))
