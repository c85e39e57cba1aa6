"""A node's raft process: the log over the machine's state, served on a private unix socket."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from cryptography import x509

from controlplane.bootstrap.process import patiently, run_child, settle_collector
from controlplane.consensus import ConsensusError, RaftNode, RaftSettings, serve
from controlplane.consensus.errors import DataDirectoryLockedError, DiskError
from controlplane.identity.check import issuer_retired
from controlplane.identity.issuing import serial_text
from controlplane.identity.reloading import follow
from controlplane.machine import authorities
from controlplane.machine.certificates import revocation
from controlplane.machine.entry import MachineState
from controlplane.model.commands import UnknownEntryError
from controlplane.settings import NodeSettings

REFUSALS = (ConsensusError, UnknownEntryError, ValueError)
FAILURES = (DiskError,)
FRONT_PATIENCE = 0.4
"""Of the time of a lease: what is left of it must do for another node to lead and to grant again."""
SWITCH_S = 0.001
"""How long a thread that writes a snapshot may keep the interpreter from the event loop, which acknowledges writes."""


def socket_path(settings: NodeSettings) -> Path:
    return settings.data_dir / "private" / "log.sock"


def raft_settings(settings: NodeSettings) -> RaftSettings:
    """Raises ValueError, naming the setting."""
    return RaftSettings(
        node=settings.node,
        cluster_id=settings.cluster_id,
        data_dir=settings.data_dir / "raft",
        listen=settings.raft.listen,
        advertise=settings.raft.advertise or "",
        join=settings.raft.join,
        peers=settings.raft.peers,
        tls=settings.tls,
        fsync=settings.fsync,
        dead_server_cleanup_s=settings.raft.dead_server_cleanup_s,
        snapshot_entries=settings.raft.snapshot_entries,
        snapshot_bytes=settings.raft.snapshot_bytes,
        snapshot_age_s=settings.raft.snapshot_age_s,
        election_min_s=settings.election.min_s,
        election_max_s=settings.election.max_s,
    )


async def run_raft(settings: NodeSettings) -> None:
    sys.setswitchinterval(SWITCH_S)
    machine = MachineState(settings.cluster_id)

    def revoked(peer: str, certificate: x509.Certificate) -> str | None:
        retired = (each.certificate for each in authorities.retired(machine.state))
        serial = serial_text(certificate)
        return revocation(machine.state, "node", peer, serial) or issuer_retired(certificate, retired)

    node = RaftNode(raft_settings(settings), machine, settle=settle_collector, revoked=revoked)
    await patiently(node.start, DataDirectoryLockedError)
    reloading = asyncio.create_task(follow(settings.tls, node.reload_tls))
    try:
        await serve(node, socket_path(settings), front_patience_s=FRONT_PATIENCE * settings.lease.ttl_s)
    finally:
        reloading.cancel()


if __name__ == "__main__":
    sys.exit(run_child("raft", run_raft, REFUSALS, FAILURES))
