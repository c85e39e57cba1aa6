"""What an operator and the API see of a member."""

from __future__ import annotations

from controlplane.consensus.core import RaftCore
from controlplane.consensus.disk import Disk
from controlplane.consensus.journal import Journal
from controlplane.consensus.settings import RaftSettings
from controlplane.consensus.transport import PeerTransport
from controlplane.model.commands.versions import MACHINE_VERSION
from controlplane.ports import LogStatus, PeerStatus, ReplicatedState


def starting_status(settings: RaftSettings) -> LogStatus:
    """The status of a member that does not run yet, or no more."""
    return LogStatus(
        node=settings.node,
        role="starting",
        leader=None,
        term=0,
        last_index=0,
        commit_index=0,
        applied_index=0,
        entry_index=0,
        has_quorum=False,
        fsync=settings.fsync,
        state_hash="",
        state_hash_index=0,
        snapshot_index=0,
        log_bytes=0,
        peers=(),
    )


def running_status(
    settings: RaftSettings,
    core: RaftCore,
    journal: Journal,
    transport: PeerTransport,
    state: ReplicatedState,
    disk: Disk,
    uptime_s: float,
    removed_dead: tuple[str, ...],
) -> LogStatus:
    configuration = core.configuration
    return LogStatus(
        node=settings.node,
        role=core.role,
        leader=core.leader,
        term=core.term,
        last_index=journal.last_index,
        commit_index=core.commit_index,
        applied_index=core.applied_index,
        entry_index=core.entry_index,
        has_quorum=core.has_quorum,
        fsync=settings.fsync,
        fsync_latency=disk.sync_latency.summary(),
        state_hash=state.digest(),
        state_hash_index=core.applied_index,
        checked_index=core.checked_index,
        divergences=core.divergences,
        snapshot_index=core.snapshot_index,
        snapshot_age_s=core.snapshot_age_s,
        log_entries=journal.last_index - journal.base_index,
        log_bytes=journal.size_bytes,
        uptime_s=uptime_s,
        removed_dead=removed_dead,
        peers=tuple(_peer_status(core, journal, transport, peer) for peer in sorted(transport.peers)),
        members=configuration.members if configuration is not None else (),
        configuration_index=core.configuration_index,
        incarnation=core.incarnation,
        machine_version=MACHINE_VERSION,
    )


def _peer_status(core: RaftCore, journal: Journal, transport: PeerTransport, peer: str) -> PeerStatus:
    configuration = core.configuration
    heard_s = core.last_heard_s(peer)
    match_index = core.match_index(peer)
    return PeerStatus(
        node=peer,
        address=transport.peers[peer],
        connected=transport.is_connected(peer),
        match_index=match_index,
        lag_entries=None if match_index is None else journal.last_index - match_index,
        last_contact_ms=None if heard_s is None else round(heard_s * 1000),
        learner=configuration is not None and peer in configuration.learners,
        machine_version=transport.roster.machine_version(peer),
    )
