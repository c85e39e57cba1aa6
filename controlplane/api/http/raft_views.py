"""The log's status as the API shows it, and what an operator has to know of it without reading every figure.

`concerns` are facts about this node alone: what only a comparison of nodes shows is for whoever asked them all.
"""

from __future__ import annotations

from controlplane.api.http import cluster_shapes
from controlplane.ports import Latency, LogStatus, Member, PeerStatus


def log_shape(log: LogStatus) -> cluster_shapes.LogShape:
    return cluster_shapes.LogShape(
        node=log.node,
        role=log.role,
        leader=log.leader,
        term=log.term,
        incarnation=log.incarnation,
        machine_version=log.machine_version,
        last_index=log.last_index,
        commit_index=log.commit_index,
        applied_index=log.applied_index,
        has_quorum=log.has_quorum,
        fsync=log.fsync,
        fsync_latency=_latency(log.fsync_latency),
        state_hash=log.state_hash,
        state_hash_index=log.state_hash_index,
        checked_index=log.checked_index,
        divergences=[
            cluster_shapes.DivergenceShape(
                node=each.node, index=each.index, state_hash=each.state_hash, expected=each.expected
            )
            for each in log.divergences
        ],
        snapshot_index=log.snapshot_index,
        snapshot_age_s=log.snapshot_age_s,
        log_entries=log.log_entries,
        log_bytes=log.log_bytes,
        uptime_s=round(log.uptime_s, 3),
        configuration_index=log.configuration_index,
        members=[member_shape(member) for member in log.members],
        removed_dead=list(log.removed_dead),
        peers=[_peer(peer) for peer in log.peers],
        concerns=concerns(log),
    )


def member_shape(member: Member) -> cluster_shapes.MemberShape:
    return cluster_shapes.MemberShape(
        node=member.node,
        address=member.address,
        role=member.role,
        api=member.api or None,
        gateway=member.gateway or None,
    )


def concerns(log: LogStatus) -> list[str]:
    """What is wrong, or unsafe, at this node; empty when nothing is."""
    found: list[str] = []
    if log.role == "starting":
        found.append("the log is starting")
    elif not log.has_quorum:
        found.append("no quorum: nothing can be written" if log.role == "leader" else "no live leader is known")
    for each in log.divergences:
        found.append(f"diverged: the state of {each.node} at {each.index} is not that of the others")
    if log.fsync == "never":
        found.append("fsync: never: a power failure loses acknowledged writes")
    if log.members and all(member.node != log.node for member in log.members):
        found.append("not a member of the cluster (yet, or any more)")
    if log.configuration_index > log.commit_index and log.has_quorum:
        found.append("a change of the members is not committed yet")
    return found


def _latency(latency: Latency) -> cluster_shapes.LatencyShape:
    return cluster_shapes.LatencyShape(
        samples=latency.samples,
        p50_ms=round(latency.p50_ms, 3),
        p99_ms=round(latency.p99_ms, 3),
        max_ms=round(latency.max_ms, 3),
    )


def _peer(peer: PeerStatus) -> cluster_shapes.PeerShape:
    return cluster_shapes.PeerShape(
        node=peer.node,
        address=peer.address,
        connected=peer.connected,
        learner=peer.learner,
        match_index=peer.match_index,
        lag_entries=peer.lag_entries,
        last_contact_ms=peer.last_contact_ms,
        machine_version=peer.machine_version,
    )
