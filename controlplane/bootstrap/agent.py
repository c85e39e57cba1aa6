"""A host's agent process, with the drivers that its settings choose."""

from __future__ import annotations

import structlog

from controlplane import logs
from controlplane.agent import Agent, AgentSettings
from controlplane.agent.agent import DriverStartError
from controlplane.agent.inventory import InventoryError
from controlplane.agent.journal import JournalError
from controlplane.agent.settings import AgentSettingsError
from controlplane.agent.statedir import StateDirError
from controlplane.bootstrap import process
from controlplane.ports import HostDriver
from controlplane.settings import (
    AgentFileSettings,
    DriverSettings,
    FlintlockdDriverSettings,
    QemuDriverSettings,
    SimulatedDriverSettings,
)
from controlplane.supervisor import EX_CONFIG, told_to_stop
from controlplane.system import SystemClock, Ulids

REFUSALS = (AgentSettingsError, DriverStartError, InventoryError, JournalError, StateDirError, ValueError)

_log = structlog.get_logger(__name__)


def run(settings: AgentFileSettings) -> int:
    """Run a host's agent until SIGTERM or SIGINT; microVMs outlive it. Gives the exit code."""
    logs.configure(settings.log_level, process="agent", host=settings.host)
    try:
        agent = make_agent(settings)
    except (AgentSettingsError, OSError, ValueError) as error:
        _log.error("process.refused", reason=str(error))
        return EX_CONFIG
    return process.run(agent.run(), told_to_stop(), REFUSALS)


def make_agent(settings: AgentFileSettings) -> Agent:
    """The agent with its drivers, not yet running. Raises AgentSettingsError, OSError or ValueError."""
    return Agent(_agent_settings(settings), _drivers(settings), SystemClock(), Ulids())


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
        grantless_s=max(2.0, 2.0 * settings.heartbeat_s),
        resync_s=settings.resync_s,
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
            return QemuDriver(
                state_dir,
                images,
                instance=settings.host,
                accelerator=driver.accelerator,
                keep_local_volumes_s=driver.keep_local_volumes_s,
            )
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
