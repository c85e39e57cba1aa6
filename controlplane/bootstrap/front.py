"""A node's front process: the edges and the reconcilers, over one replica of the state."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Coroutine, Iterator
from functools import partial
from importlib.metadata import version

import uvloop

from controlplane.api.gateway import Gateway
from controlplane.api.gateway.server import GatewayError
from controlplane.api.http.app import create_app
from controlplane.api.http.credentials import Credentials
from controlplane.api.http.protocol import ConnectionLimits
from controlplane.api.http.rates import Rate
from controlplane.api.http.server import ApiServer
from controlplane.api.http.settings import ApiSettings
from controlplane.api.http.token_uses import TokenUses
from controlplane.api.http.trail import Trail
from controlplane.audit.exporter import Exporter
from controlplane.audit.keeper import Keeper
from controlplane.backup import open_store
from controlplane.backup.schedule import BackupSchedule
from controlplane.bootstrap.forecast import forecast_of
from controlplane.bootstrap.process import StartError, patiently, run_child, settle_collector
from controlplane.bootstrap.raft import socket_path
from controlplane.consensus import LogClient
from controlplane.consensus.configuration import Configuration, encode
from controlplane.decide.breaker import FailoverLimits
from controlplane.identity.names import IdentityError
from controlplane.identity.oidc import OidcTokens
from controlplane.identity.reloading import follow
from controlplane.identity.tokens import TokenAuthenticator
from controlplane.issuance.founding import AuthorityFile, establish
from controlplane.issuance.issuer import ClusterIssuer
from controlplane.issuance.renewal import NodeRenewal
from controlplane.model.commands import UnknownEntryError
from controlplane.model.gc import Trigger
from controlplane.ports import Clock, NodeView, SnapshotSource, StoreError
from controlplane.ports.issuance import Lives
from controlplane.reconcile.evacuation import EvacuationRunner
from controlplane.reconcile.failover import FailoverRunner
from controlplane.reconcile.gc import GCRunner
from controlplane.reconcile.groups import GroupRunner
from controlplane.reconcile.hostwatch import HostWatch
from controlplane.reconcile.leases import LeaseKeeper
from controlplane.reconcile.ledger import Ledger
from controlplane.reconcile.scheduler import Scheduler
from controlplane.replica import Replica
from controlplane.replica.addresses import AddressBook, Announcer
from controlplane.replica.snapshots import Snapshots
from controlplane.sealing import KeyRing, SealingError
from controlplane.settings import NodeSettings, dialled_at, split_address
from controlplane.supervisor import STOP_GRACE_S
from controlplane.system import SystemClock, Ulids

API_GRACE_S = STOP_GRACE_S - 3.0
"""For writes in flight; the rest is for saying goodbye to agents and nodes before the parent's patience ends."""
REFUSALS = (GatewayError, StartError, UnknownEntryError)


async def run_front(settings: NodeSettings) -> None:
    clock, ids = SystemClock(), Ulids()
    log = LogClient(socket_path(settings))
    replica = Replica(log, cluster_id=settings.cluster_id, clock=clock, ids=ids, settle=settle_collector)
    addresses = AddressBook(
        lambda: replica.status,
        api={settings.node: settings.http.address, **settings.http.peers},
        gateway={settings.node: settings.gateway.address, **settings.gateway.peers},
    )
    announcer = Announcer(lambda: replica.status, log, api=settings.http.address, gateway=settings.gateway.address)
    ledger = Ledger()
    keeper = LeaseKeeper(replica, clock, ledger, settings.lease)
    watch = HostWatch(replica, replica, clock, ledger, reign=lambda: replica.reign, lease=settings.lease)
    issuer, file = _authority(settings, replica, clock)
    gateway = Gateway(
        node=settings.node,
        cluster_id=settings.cluster_id,
        reader=replica,
        proposer=replica,
        ids=ids,
        clock=clock,
        nodes=addresses.gateways,
        tls=settings.tls,
        listen=settings.gateway.listen,
        keeper=keeper,
        leader=lambda: replica.leader,
        lease_ttl_s=settings.lease.ttl_s,
        view=lambda: NodeView(contact=replica.contact, revision=replica.state.revision, waits_s=watch.waits_s),
        issuer=issuer,
    )
    snapshots = Snapshots(
        fresh=replica.fresh_at,
        status=log.status,
        configuration=lambda status: encode(Configuration(status.incarnation, tuple(status.members))),
        clock=clock,
        ids=ids,
    )
    backups = _backups(settings, snapshots, replica, clock)
    limits = FailoverLimits(
        max_unhealthy=settings.failover.max_unhealthy,
        window_s=settings.failover.window_s,
        per_round=settings.failover.per_round,
    )
    token_uses = TokenUses(replica)
    refused = Counter[Trigger]()
    app = create_app(
        reader=replica,
        proposer=replica,
        agents=gateway.link,
        nodes=gateway.link,
        log=log,
        members=log,
        snapshots=snapshots,
        forecast=forecast_of,
        backup=lambda: backups.status() if backups is not None else None,
        identity=Credentials(
            file=TokenAuthenticator.from_file(settings.tokens_file),
            reader=replica,
            clock=clock,
            uses=token_uses,
            issuers=OidcTokens(settings.oidc) if settings.oidc else None,
        ),
        gc_refused=refused,
        clock=clock,
        ids=ids,
        settings=ApiSettings(
            node=settings.node,
            version=version("flintlock-controlplane"),
            addresses=addresses.apis,
            gateways=addresses.gateways,
            failover=limits,
            gc_policy=settings.gc.policy,
            gc_per_round=settings.gc.per_round,
            api_token_ttl_s=settings.api_tokens.ttl_s,
            api_token_max_ttl_s=settings.api_tokens.max_ttl_s,
            max_watchers=settings.http.limits.watchers,
            watchers_per_identity=settings.http.limits.watchers_per_identity,
            identity_rate=Rate(settings.http.limits.identity_per_s, settings.http.limits.identity_burst),
            stranger_rate=Rate(settings.http.limits.stranger_per_s, settings.http.limits.stranger_burst),
        ),
        signer=issuer,
    )
    connections = ConnectionLimits(
        connections=settings.http.limits.connections,
        per_address=settings.http.limits.connections_per_address,
        head_timeout_s=settings.http.limits.head_timeout_s,
    )
    host, port = split_address(settings.http.listen)
    http = ApiServer(app, host=host, port=port, tls=settings.tls, grace_s=API_GRACE_S, limits=connections)
    scheduler = Scheduler(replica, replica, gateway.link, lambda: replica.is_leader)
    evacuation = EvacuationRunner(replica, replica, gateway.link, lambda: replica.is_leader)

    groups = GroupRunner(replica, replica, clock, ids, is_leader=lambda: replica.is_leader)

    def leading_term() -> int | None:
        return replica.reign.term if replica.reign is not None else None

    failover = FailoverRunner(replica, replica, clock, leading_term=leading_term, limits=limits)
    collector = GCRunner(
        replica, replica, clock, is_leader=lambda: replica.is_leader, settings=settings.gc, refused=refused
    )
    async with asyncio.TaskGroup() as tasks:
        runners = (
            scheduler.run(),
            failover.run(),
            evacuation.run(),
            groups.run(),
            collector.run(),
            announcer.run(),
            token_uses.run(),
            follow(settings.tls, http.reload_tls),
            *_certifiers(settings, replica, clock, issuer, file),
        )
        for runner in (replica.run(), *runners, *_auditors(settings, replica, clock, app.state.trail)):
            tasks.create_task(runner)
        if backups is not None:
            tasks.create_task(backups.run())
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
            await log.aclose()


def _certifiers(
    settings: NodeSettings,
    replica: Replica,
    clock: Clock,
    issuer: ClusterIssuer | None,
    file: AuthorityFile | None,
) -> Iterator[Coroutine[None, None, None]]:
    """Nobody where the certificates come from elsewhere."""
    if issuer is not None and file is not None:
        yield establish(file, replica, replica)
        yield NodeRenewal(settings.node, settings.tls, dialled_at(settings), issuer, replica, clock).run()


def _auditors(
    settings: NodeSettings, replica: Replica, clock: Clock, trail: Trail
) -> Iterator[Coroutine[None, None, None]]:
    audit = settings.audit
    yield trail.run()
    yield Keeper(
        replica,
        replica,
        clock,
        node=settings.node,
        is_leader=lambda: replica.is_leader,
        keep_records=audit.keep_records,
    ).run()
    if audit.export:
        directory = audit.directory or settings.data_dir / "audit"
        yield Exporter(replica, replica, clock, node=settings.node, directory=directory).run()


def _authority(
    settings: NodeSettings, replica: Replica, clock: Clock
) -> tuple[ClusterIssuer | None, AuthorityFile | None]:
    """Raises StartError when the key ring or the authority's file cannot be used."""
    authority = settings.authority
    if authority is None:
        return None, None
    try:
        ring = KeyRing.load(authority.keys_file)
        file = AuthorityFile.load(authority.file)
        file.issuer(ring)
    except SealingError as error:
        raise StartError(f"authority.keys_file: {error}") from None
    except IdentityError as error:
        raise StartError(f"authority.file: {error}") from None
    lives = Lives(host_s=authority.host_life_s, node_s=authority.node_life_s)
    return ClusterIssuer(settings.cluster_id, replica, replica, clock, ring, lives), file


def _backups(settings: NodeSettings, source: SnapshotSource, replica: Replica, clock: Clock) -> BackupSchedule | None:
    """Raises StartError when the place of the backups cannot be one."""
    backup = settings.backup
    if backup is None:
        return None
    opened = partial(open_store, backup.store, os.environ, credentials=backup.s3_credentials)
    try:
        location = opened().location
    except StoreError as error:
        raise StartError(f"backup.store: {error}; {error.hint}".removesuffix("; ")) from error
    return BackupSchedule(
        cluster_id=settings.cluster_id,
        source=source,
        open_store=opened,
        location=location,
        leading=lambda: replica.is_leader,
        clock=clock,
        every_s=backup.every_s,
        keep=backup.keep,
    )


if __name__ == "__main__":
    sys.exit(run_child("front", run_front, REFUSALS, new_loop=uvloop.new_event_loop))
