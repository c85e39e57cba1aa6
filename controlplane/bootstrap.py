"""The composition root: the only place that knows every part, and which part is behind which port.

A node is a parent (`run_node`) that keeps two children alive: the raft process (`raft`: the log, and nothing else, so
that its ticks are never late) and the front process (`front`: HTTP, agent sessions, reconcilers, over a replica that
follows the log through a private unix socket). A host runs one agent process (`run_agent`).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import structlog

from controlplane import logs
from controlplane.agent import Agent, AgentSettings
from controlplane.agent.agent import DriverStartError
from controlplane.agent.inventory import InventoryError
from controlplane.agent.journal import JournalError
from controlplane.agent.settings import AgentSettingsError
from controlplane.agent.statedir import StateDirError
from controlplane.api.gateway import Gateway
from controlplane.api.gateway.server import GatewayError
from controlplane.api.http.app import create_app
from controlplane.api.http.server import ApiServer
from controlplane.api.http.settings import ApiSettings
from controlplane.consensus import ConsensusError, LogClient, RaftNode, RaftSettings, serve
from controlplane.consensus import TlsFiles as RaftTlsFiles
from controlplane.identity.tokens import TokenAuthenticator
from controlplane.machine.entry import MachineState
from controlplane.model.commands import UnknownEntryError
from controlplane.ports import HostDriver
from controlplane.reconcile.presence import PresenceWatch
from controlplane.reconcile.scheduler import Scheduler
from controlplane.replica import Replica
from controlplane.settings import (
    AgentFileSettings,
    DriverSettings,
    FlintlockdDriverSettings,
    NodeSettings,
    QemuDriverSettings,
    SimulatedDriverSettings,
    load_node,
    split_address,
)
from controlplane.supervisor import EX_CONFIG, Supervisor, parent_is_gone, told_to_stop
from controlplane.system import SystemClock, Ulids

REFUSALS = (
    AgentSettingsError,
    ConsensusError,
    DriverStartError,
    GatewayError,
    InventoryError,
    JournalError,
    StateDirError,
    UnknownEntryError,
    OSError,
    ValueError,
)
"""Errors that starting again does not mend."""
VERSION = version("flintlock-controlplane")

_log = structlog.get_logger(__name__)


# -- the node ----------------------------------------------------------------------------------------------------------


def run_node(settings: NodeSettings, config: Path) -> int:
    """Run a node until SIGTERM or SIGINT; `config` is the file that `settings` came from. Gives the exit code."""
    logs.configure(settings.log_level, process="node", node=settings.node)
    this = [sys.executable, "-m", "controlplane.bootstrap"]
    children = {name: [*this, name, str(config)] for name in ("raft", "front")}
    return asyncio.run(Supervisor(children).run())


def _socket_path(settings: NodeSettings) -> Path:
    return settings.data_dir / "private" / "log.sock"


async def _raft(settings: NodeSettings) -> None:
    node = RaftNode(
        RaftSettings(
            node=settings.node,
            cluster_id=settings.cluster_id,
            data_dir=settings.data_dir / "raft",
            listen=settings.raft.listen,
            peers=settings.raft.peers,
            tls=RaftTlsFiles(ca=settings.tls.ca, cert=settings.tls.certificate, key=settings.tls.key),
            fsync=settings.fsync,
            election_min_s=settings.election.min_s,
            election_max_s=settings.election.max_s,
        ),
        MachineState(settings.cluster_id),
    )
    await node.start()
    await serve(node, _socket_path(settings))


async def _front(settings: NodeSettings) -> None:
    clock, ids = SystemClock(), Ulids()
    log = LogClient(_socket_path(settings))
    replica = Replica(log, cluster_id=settings.cluster_id, clock=clock, ids=ids)
    gateway = Gateway(
        node=settings.node,
        cluster_id=settings.cluster_id,
        reader=replica,
        proposer=replica,
        ids=ids,
        clock=clock,
        peers=settings.gateway.peers,
        advertise={settings.node: settings.gateway.address, **settings.gateway.peers},
        tls=settings.tls,
        listen=settings.gateway.listen,
    )
    app = create_app(
        reader=replica,
        proposer=replica,
        agents=gateway.link,
        log=log,
        identity=TokenAuthenticator.from_file(settings.tokens_file),
        clock=clock,
        ids=ids,
        settings=ApiSettings(node=settings.node, version=VERSION, addresses={settings.node: settings.http.address}),
    )
    host, port = split_address(settings.http.listen)
    http = ApiServer(app, host=host, port=port, tls=settings.tls)
    scheduler = Scheduler(replica, replica, gateway.link, lambda: replica.is_leader)
    presence = PresenceWatch(
        replica, replica, gateway.link, clock, lambda: replica.is_leader, timeout_s=settings.host_timeout_s
    )
    async with asyncio.TaskGroup() as tasks:
        for runner in (replica.run(), scheduler.run(), presence.run()):
            tasks.create_task(runner)
        try:
            await gateway.start()
            await http.start()
            await asyncio.Event().wait()
        finally:
            # Writes in flight still need the replica, so the edges go first.
            await http.stop()
            await gateway.stop()
            await log.aclose()


# -- the host ----------------------------------------------------------------------------------------------------------


def run_agent(settings: AgentFileSettings) -> int:
    """Run a host's agent until SIGTERM or SIGINT; microVMs outlive it. Gives the exit code."""
    logs.configure(settings.log_level, process="agent", host=settings.host)
    clock, ids = SystemClock(), Ulids()
    try:
        agent = Agent(_agent_settings(settings), _drivers(settings), clock, ids)
    except REFUSALS as error:
        _log.error("process.refused", reason=str(error))
        return EX_CONFIG
    return _run(agent.run(), told_to_stop())


def _agent_settings(settings: AgentFileSettings) -> AgentSettings:
    return AgentSettings(
        host=settings.host,
        cluster_id=settings.cluster_id,
        state_dir=settings.state_dir,
        endpoints=settings.endpoints,
        tls=settings.tls,
        vcpu=settings.capacity.vcpu,
        memory_in_mb=settings.capacity.memory_in_mb,
        microvms=settings.capacity.microvms,
        heartbeat_s=settings.heartbeat_s,
        unresponsive_s=2.5 * settings.heartbeat_s,
        resync_s=settings.resync_s,
        version=VERSION,
    )


def _drivers(settings: AgentFileSettings) -> dict[str, HostDriver]:
    return {driver.kind: _driver(settings, driver) for driver in settings.drivers}


def _driver(settings: AgentFileSettings, driver: DriverSettings) -> HostDriver:
    """Each driver brings libraries of its own, so only the chosen ones are imported."""
    state_dir = settings.state_dir / driver.kind
    match driver:
        case QemuDriverSettings():
            from controlplane.drivers.qemu import QemuDriver
            from controlplane.images.store import LocalImageStore

            images = LocalImageStore(driver.images_dir)
            return QemuDriver(state_dir, images, instance=settings.host, accelerator=driver.accelerator)
        case SimulatedDriverSettings():
            from controlplane.drivers.simulated import SimulatedDriver

            return SimulatedDriver(state_dir, boot_s=driver.boot_s)
        case FlintlockdDriverSettings():
            from controlplane.drivers.flintlockd import FlintlockdDriver, FlintlockdSettings

            tls, token_file = driver.tls, driver.token_file
            return FlintlockdDriver(
                FlintlockdSettings(
                    endpoint=driver.endpoint,
                    state_dir=state_dir,
                    token=token_file.read_text().strip() if token_file is not None else "",
                    ca_file=tls.ca if tls is not None else None,
                    cert_file=tls.certificate if tls is not None else None,
                    key_file=tls.key if tls is not None else None,
                    namespaces=tuple(driver.namespaces),
                )
            )


# -- processes ---------------------------------------------------------------------------------------------------------


async def _until(work: Coroutine[Any, Any, None], stop: Coroutine[Any, Any, None]) -> None:
    """Run `work` until it ends, which is an error of its own, or until `stop` returns."""
    working, stopping = asyncio.create_task(work), asyncio.create_task(stop)
    await asyncio.wait([working, stopping], return_when=asyncio.FIRST_COMPLETED)
    for task in (working, stopping):
        task.cancel()
    await asyncio.wait([working, stopping])
    if not working.cancelled():
        working.result()


def _run(work: Coroutine[Any, Any, None], stop: Coroutine[Any, Any, None]) -> int:
    """The exit code: EX_CONFIG when an operator has to act, with the reason in the log."""
    refused: list[str] = []
    try:
        asyncio.run(_until(work, stop))
    except* REFUSALS as group:
        refused = [str(error) for error in _leaves(group)]
    for reason in refused:
        _log.error("process.refused", reason=reason)
    return EX_CONFIG if refused else 0


def _leaves(group: BaseExceptionGroup[Exception]) -> Iterator[Exception]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


def main(arguments: list[str]) -> int:
    """`raft CONFIG` or `front CONFIG`: a child of `run_node`."""
    name, config = arguments
    settings = load_node(Path(config))
    logs.configure(settings.log_level, process=name, node=settings.node)
    work = {"raft": _raft, "front": _front}[name]
    return _run(work(settings), parent_is_gone())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
