"""What a front does without being asked, each as a coroutine that runs until it is cancelled.

Every node runs all of it; what only the leader may do asks for itself whether this node leads.
"""

from __future__ import annotations

import os
from collections.abc import Coroutine, Iterator
from functools import partial

from controlplane.api.http.trail import Trail
from controlplane.audit.exporter import Exporter
from controlplane.audit.keeper import Keeper
from controlplane.backup import open_store
from controlplane.backup.schedule import BackupSchedule
from controlplane.bootstrap.core import Core
from controlplane.bootstrap.process import StartError
from controlplane.identity.names import IdentityError
from controlplane.issuance.founding import AuthorityFile, establish
from controlplane.issuance.issuer import ClusterIssuer
from controlplane.issuance.renewal import NodeRenewal
from controlplane.ports import AgentLink, SnapshotSource, StoreError
from controlplane.ports.issuance import Lives
from controlplane.reconcile.evacuation import EvacuationRunner
from controlplane.reconcile.failover import FailoverRunner
from controlplane.reconcile.gc import GCRunner
from controlplane.reconcile.groups import GroupRunner
from controlplane.reconcile.scheduler import Scheduler
from controlplane.reconcile.upgrading import VersionRaiser
from controlplane.replica.addresses import Announcer
from controlplane.sealing import KeyRing, SealingError
from controlplane.settings import NodeSettings, dialled_at
from controlplane.vault.resealing import Resealer
from controlplane.vault.vault import ClusterVault

Runner = Coroutine[None, None, None]


def reconcilers(core: Core, agents: AgentLink) -> Iterator[Runner]:
    replica = core.replica
    yield Scheduler(replica, replica, agents, core.is_leader).run()
    yield FailoverRunner(replica, replica, core.clock, leading_term=core.leading_term, limits=core.limits).run()
    yield EvacuationRunner(replica, replica, agents, core.is_leader).run()
    yield GroupRunner(replica, replica, core.clock, core.ids, is_leader=core.is_leader).run()
    yield VersionRaiser(replica, replica, is_leader=core.is_leader, status=lambda: replica.status).run()
    yield GCRunner(
        replica,
        replica,
        core.clock,
        is_leader=core.is_leader,
        settings=core.settings.gc,
        refused=core.gc_refused,
    ).run()


def announcer(core: Core) -> Runner:
    settings, replica = core.settings, core.replica
    return Announcer(
        lambda: replica.status, core.log, api=settings.http.address, gateway=settings.gateway.address
    ).run()


def auditors(core: Core, trail: Trail) -> Iterator[Runner]:
    settings, replica = core.settings, core.replica
    audit, node = settings.audit, settings.node
    yield trail.run()
    yield Keeper(
        replica, replica, core.clock, node=node, is_leader=core.is_leader, keep_records=audit.keep_records
    ).run()
    if audit.export:
        directory = audit.directory or settings.data_dir / "audit"
        yield Exporter(replica, replica, core.clock, node=node, directory=directory).run()


def open_ring(settings: NodeSettings) -> KeyRing | None:
    """Raises StartError when it cannot be used."""
    if settings.authority is not None:
        field, path = "authority.keys_file", settings.authority.keys_file
    elif settings.keys_file is not None:
        field, path = "keys_file", settings.keys_file
    else:
        return None
    try:
        return KeyRing.load(path)
    except SealingError as error:
        raise StartError(f"{field}: {error}") from None


def open_authority(core: Core, ring: KeyRing | None) -> tuple[ClusterIssuer | None, AuthorityFile | None]:
    """Raises StartError when the authority's file cannot be used."""
    authority = core.settings.authority
    if authority is None or ring is None:
        return None, None
    try:
        file = AuthorityFile.load(authority.file)
        file.issuer(ring)
    except IdentityError as error:
        raise StartError(f"authority.file: {error}") from None
    lives = Lives(host_s=authority.host_life_s, node_s=authority.node_life_s)
    return ClusterIssuer(core.settings.cluster_id, core.replica, core.replica, core.clock, ring, lives), file


def certifiers(core: Core, issuer: ClusterIssuer | None, file: AuthorityFile | None) -> Iterator[Runner]:
    """Nobody where the certificates come from elsewhere."""
    settings = core.settings
    if issuer is not None and file is not None and settings.authority is not None:
        yield establish(file, core.replica, core.replica)
        yield NodeRenewal(
            settings.node,
            settings.tls,
            settings.authority.file,
            dialled_at(settings),
            issuer,
            core.replica,
            core.clock,
        ).run()


def resealers(core: Core, vault: ClusterVault | None) -> Iterator[Runner]:
    if vault is not None:
        yield Resealer(core.replica, core.replica, vault, core.is_leader).run()


def open_backups(core: Core, source: SnapshotSource) -> BackupSchedule | None:
    """Raises StartError when the place of the backups cannot be one."""
    backup = core.settings.backup
    if backup is None:
        return None
    opened = partial(open_store, backup.store, os.environ, credentials=backup.s3_credentials)
    try:
        location = opened().location
    except StoreError as error:
        raise StartError(f"backup.store: {error}; {error.hint}".removesuffix("; ")) from error
    return BackupSchedule(
        cluster_id=core.settings.cluster_id,
        source=source,
        open_store=opened,
        location=location,
        leading=core.is_leader,
        clock=core.clock,
        every_s=backup.every_s,
        keep=backup.keep,
    )
