"""The cluster as this node sees it, health, and what can be known without asking: the schema of specs."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping

from fastapi import APIRouter
from pydantic import TypeAdapter
from starlette.responses import Response

from controlplane.api.http import beliefs, cluster_shapes, partition, problems, raft_views, shapes, views
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Services, With
from controlplane.api.http.times import iso
from controlplane.decide.breaker import breaker
from controlplane.machine.codec import digest_text
from controlplane.machine.convergence import current_observation
from controlplane.model.spec import MICROVM_FIELD_EFFECTS, MicroVMSpec
from controlplane.ports import BackupStatus, LogError, LogStatus, NodeView, Presence

router = APIRouter(tags=["Cluster"], route_class=StrictRoute)
health = APIRouter(tags=["Health"], route_class=StrictRoute)


@router.get("/cluster", response_model=cluster_shapes.ClusterShape)
async def cluster(services: With) -> Response:
    """The cluster as this node sees it: always its own replica, since it has to answer without a leader too."""
    timeout_s = services.settings.presence_timeout_s
    log, presence, views_of = await asyncio.gather(
        _log_status(services), _presence(services), services.nodes.views(timeout_s=timeout_s)
    )
    state = services.reader.state
    document = cluster_shapes.ClusterShape(
        cluster_id=state.cluster_id,
        revision=state.revision,
        state_hash=digest_text(state),
        node=services.settings.node,
        version=services.settings.version,
        machine_version=state.machine_version,
        log=raft_views.log_shape(log) if log is not None else None,
        backup=_backup(services.backup()),
        nodes=_nodes(services, log, presence, views_of),
        disagreements=beliefs.disagreements(views_of),
        restore=beliefs.restore(state, log.incarnation if log is not None else 0, views_of),
        failover=views.failover_shape(breaker(state, services.settings.failover, now_ms=services.clock.now_ms())),
        hosts=dict(Counter(views.host_phase(host) for host in state.hosts.values())),
        microvms=dict(
            Counter(
                seen.power.value if (seen := current_observation(vm)) is not None else "pending"
                for vm in state.microvms.values()
            )
        ),
    )
    return respond(document, state)


async def _log_status(services: Services) -> LogStatus | None:
    try:
        async with asyncio.timeout(services.settings.presence_timeout_s):
            return await services.log.status()
    except (LogError, TimeoutError):
        return None


async def _presence(services: Services) -> tuple[list[Presence], set[str]] | None:
    """Agent sessions, and the nodes that did not answer; None when nobody could be asked."""
    timeout_s = services.settings.presence_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            sessions, silent = await services.agents.presence(timeout_s=timeout_s)
    except TimeoutError:
        return None
    return list(sessions), set(silent)


def _backup(backup: BackupStatus | None) -> cluster_shapes.BackupShape | None:
    if backup is None:
        return None
    return cluster_shapes.BackupShape(
        location=backup.location,
        every_s=backup.every_s,
        last_saved_at=iso(backup.last_saved_at_ms),
        last_index=backup.last_index,
        error=backup.error,
        error_at=iso(backup.error_at_ms),
        overdue=backup.overdue,
    )


def _nodes(
    services: Services,
    log: LogStatus | None,
    presence: tuple[list[Presence], set[str]] | None,
    views_of: Mapping[str, NodeView | str],
) -> list[cluster_shapes.NodeShape]:
    own, addresses = services.settings.node, services.settings.addresses()
    peers = {peer.node: peer for peer in log.peers} if log is not None else {}
    nodes: list[cluster_shapes.NodeShape] = []
    for node in sorted({own, *peers, *addresses, *views_of}):
        peer = peers.get(node)
        reachable = node == own or (peer is not None and peer.connected)
        role: str | None = None
        if log is not None and node == own:
            role = log.role
        elif log is not None and reachable:
            role = "leader" if log.leader == node else "follower" if log.leader is not None else None
        agents = None
        if presence is not None and node not in presence[1]:
            agents = sum(1 for session in presence[0] if session.node == node)
        nodes.append(
            cluster_shapes.NodeShape(
                node=node,
                address=addresses.get(node) or None,
                reachable=reachable,
                role=role,
                agents=agents,
                belief=beliefs.shape(view) if isinstance(view := views_of.get(node), NodeView) else None,
                not_asked=view if isinstance(view, str) else "" if view is not None else "its address is not known",
            )
        )
    return nodes


@router.get("/schema/microvm", response_model=shapes.SpecSchema)
async def microvm_schema(services: With) -> Response:
    """The JSON Schema of a microVM's spec, and what changing each of its fields does."""
    document = shapes.SpecSchema(
        schema_=TypeAdapter(MicroVMSpec).json_schema(),
        effects=dict(MICROVM_FIELD_EFFECTS),
    )
    return respond(document, services.reader.state)


@health.get("/healthz", response_model=shapes.Health)
async def alive(services: With) -> Response:
    """200 while the process serves."""
    return respond(shapes.Health(), services.reader.state)


@health.get("/readyz", response_model=shapes.Health)
async def ready(services: With) -> Response:
    """200 while a leader is known and this node's replica follows it."""
    if not services.reader.caught_up or services.closing.is_set():
        contact = services.reader.contact
        leaderless = contact.leader is None and not services.closing.is_set()
        why = partition.words(contact) if leaderless else "it stops, or its replica is behind the leader"
        raise problems.problem("not_ready", why, retry_after_s=1)
    return respond(shapes.Health(), services.reader.state)
