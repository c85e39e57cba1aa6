"""Settings that cannot work are refused by the field's name, before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from controlplane.agent import Agent, AgentSettings
from controlplane.agent.settings import AgentSettingsError
from controlplane.drivers.simulated import SimulatedDriver
from controlplane.identity.files import TlsFiles
from controlplane.system import SystemClock, Ulids


@pytest.fixture
def tls(tmp_path: Path) -> TlsFiles:
    files = [tmp_path / name for name in ("ca.crt", "h1.crt", "h1.key")]
    for path in files:
        path.write_text("x")
    return TlsFiles(*files)


@pytest.fixture
def good(tmp_path: Path, tls: TlsFiles) -> AgentSettings:
    return AgentSettings(host="h1", state_dir=tmp_path / "state", endpoints={"n1": "127.0.0.1:7001"}, tls=tls)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"host": "Host_1"}, "host: 'Host_1' is not a host name"),
        ({"host": ""}, "host: '' is not a host name"),
        ({"state_dir": Path("here")}, "state_dir: here is not an absolute path"),
        ({"endpoints": {}}, "endpoints: is empty"),
        ({"endpoints": {"n1": "localhost"}}, "endpoints.n1: 'localhost' is not HOST:PORT"),
        ({"endpoints": {"n1": "a:70000"}}, "endpoints.n1: 'a:70000' is not HOST:PORT"),
        ({"endpoints": {"n1": "::1:7001"}}, "endpoints.n1: '::1:7001' is not HOST:PORT"),
        ({"grantless_s": 1.0}, "grantless_s: 1 leaves no room for one lost heartbeat of 1 s"),
        ({"renew_timeout_s": 0.0}, "renew_timeout_s: 0.0 is not between 0 and 3600 seconds"),
        ({"tls": TlsFiles(Path("/no/ca"), Path("/no/c"), Path("/no/k"))}, "tls.ca: /no/ca is not a file"),
        ({"heartbeat_s": 0}, "heartbeat_s: 0 is not between"),
        ({"resync_s": -1}, "resync_s: -1 is not between"),
        ({"grace_s": -1}, "grace_s: -1 is not between"),
        ({"driver_timeout_s": 1e9}, "driver_timeout_s: 1000000000.0 is not between"),
        ({"heartbeat_s": 2.0}, "unresponsive_s: 2.5 leaves no room for one lost heartbeat of 2 s"),
        ({"concurrency": 0}, "concurrency: 0 is not between 1 and 1024"),
        ({"vcpu": 0}, "vcpu: 0 is not positive"),
        ({"memory_in_mb": -5}, "memory_in_mb: -5 is not positive"),
        ({"microvms": -1}, "microvms: -1 is negative"),
        ({"vcpu_per_cpu": 0}, "vcpu_per_cpu: 0 is not between"),
        ({"reserved_memory_in_mb": -1}, "reserved_memory_in_mb: -1 is negative"),
    ],
)
def test_a_value_that_cannot_work_is_named(good: AgentSettings, changes: dict[str, object], message: str) -> None:
    with pytest.raises(AgentSettingsError) as refused:
        replace(good, **changes)
    assert str(refused.value).startswith(message)


def test_an_ipv6_endpoint_is_fine(good: AgentSettings) -> None:
    assert replace(good, endpoints={"n1": "[::1]:7001"}).endpoints == {"n1": "[::1]:7001"}


def test_an_agent_needs_a_driver_and_its_default_must_be_one(good: AgentSettings, tmp_path: Path) -> None:
    with pytest.raises(AgentSettingsError, match="drivers: is empty"):
        Agent(good, {}, SystemClock(), Ulids())
    drivers = {"simulated": SimulatedDriver(tmp_path / "driver")}
    with pytest.raises(AgentSettingsError, match="default_driver: 'qemu' is not one of simulated"):
        Agent(replace(good, default_driver="qemu"), drivers, SystemClock(), Ulids())
