"""An operator's view of a real local cluster: processes on loopback, real Terraform, simulated hosts.

One cluster serves every scenario of the session; each scenario starts from an empty one, with every process running.
Sentences carry their deadline; nothing here sleeps for a fixed time.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from acceptance.terraform.runner import Flavor, Result, Terraform, has_path_terraform
from pytest_bdd import given, parsers, then, when
from support.cluster import items, leader_of, within
from support.copies import running

from controlplane.cli.client import Client
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.errors import ProblemError

WATCH_PERIOD_S = 0.2
HEADER = """
terraform {
  required_providers {
    flintlock = { source = "microscaler/flintlock" }
  }
}

resource "flintlock_host" "this" {
  for_each = toset(["h1", "h2", "h3"])
  name     = each.key
}

resource "flintlock_namespace" "fleet" {
  name = "fleet"
}
"""


@dataclass
class Fleet:
    """What a scenario works on."""

    cluster: DevCluster
    terraform: Terraform
    client: Client
    microvms: dict[str, dict[str, str]] = field(default_factory=dict)
    """Name to the HCL of its fields."""
    failover_policies: dict[str, dict[str, str]] = field(default_factory=dict)
    """The same of policies."""
    before: dict[str, Any] = field(default_factory=dict)
    """What a later sentence compares with."""
    last: Result | None = None

    def write(self) -> None:
        blocks = [HEADER]
        for name, fields in self.failover_policies.items():
            lines = "\n".join(f"  {key} = {value}" for key, value in fields.items())
            blocks.append(f'resource "flintlock_failover_policy" "{name}" {{\n  name = "{name}"\n{lines}\n}}\n')
        for name, fields in self.microvms.items():
            lines = "\n".join(f"  {key} = {value}" for key, value in fields.items())
            blocks.append(
                f'resource "flintlock_microvm" "{name}" {{\n'
                f'  name = "{name}"\n  namespace = flintlock_namespace.fleet.name\n{lines}\n'
                f"  depends_on = [flintlock_host.this]\n}}\n"
                f'output "{name}" {{\n  value = flintlock_microvm.{name}.uid\n}}\n'
            )
        self.terraform.write("\n".join(blocks))

    def apply(self) -> None:
        self.write()
        self.last = self.terraform.apply()

    def get(self, name: str) -> dict[str, Any]:
        return self.client.get(f"/namespaces/fleet/microvms/{name}").body

    def items(self, path: str) -> list[dict[str, Any]]:
        return items(self.client, path)

    def host_of(self, name: str) -> str:
        return self.get(name)["status"]["host"]

    def state_dir(self, host: str) -> Path:
        return self.cluster.layout.driver_state(host)

    def tamper(self, *arguments: str, host: str) -> str:
        """Change simulated microVMs behind the agent's back."""
        command = [sys.executable, "-m", "controlplane.drivers.simulated", arguments[0]]
        command += ["--state-dir", str(self.state_dir(host)), *arguments[1:]]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout

    def flintctl(self, *arguments: str) -> tuple[int, str]:
        environ = {**os.environ, **self.terraform.env}
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
        return done.returncode, done.stdout + done.stderr


@pytest.fixture
def flavor() -> Flavor:
    return "path" if has_path_terraform() else "lib"


@pytest.fixture
def fleet(cluster: DevCluster, mirror: Path, tmp_path: Path, flavor: Flavor) -> Fleet:
    terraform = Terraform(flavor, tmp_path, {**cluster.layout.environment, "TF_CLI_CONFIG_FILE": str(mirror)})
    made = Fleet(cluster=cluster, terraform=terraform, client=cluster.client())
    made.write()
    terraform.init()
    return made


def microvm_fields() -> dict[str, str]:
    return {
        "vcpu": "1",
        "memory_in_mb": "128",
        "kernel": '{ image = "demo/kernel:6.1" }',
        "root_volume": '{ container_source = "demo/root:1" }',
        "wait_for": '"ready"',
    }


class SecondCopies:
    """Looks at every host's driver again and again: who runs what, at one moment."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.found: list[str] = []
        self.looks = 0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(WATCH_PERIOD_S):
            runs = running(self._fleet.cluster)
            self.looks += 1
            self.found += [f"{name} on {' and '.join(hosts)}" for name, hosts in runs.items() if len(hosts) > 1]


@pytest.fixture
def copies(fleet: Fleet) -> Iterator[SecondCopies]:
    watching = SecondCopies(fleet)
    yield watching
    watching.stop()


# -- Given -------------------------------------------------------------------------------------------------------------


@given("a cluster of 3 nodes and 3 simulated hosts")
def _cluster(fleet: Fleet) -> None:
    assert {host["status"]["simulated"] for host in fleet.items("/hosts")} == {True}


@given(parsers.parse("{count:d} microVMs are declared in HCL"))
def _declared(fleet: Fleet, count: int) -> None:
    fleet.microvms = {f"vm-{number}": microvm_fields() for number in range(count)}
    fleet.write()


@given(parsers.parse("terraform has applied {count:d} microVMs, at most one per host"))
def _applied_spread(fleet: Fleet, count: int) -> None:
    _declared(fleet, count)
    for fields in fleet.microvms.values():
        fields["placement"] = '{ spread = { by = "host", max_per = 1 } }'
    fleet.apply()
    fleet.before |= {name: fleet.get(name) for name in fleet.microvms}


@given(parsers.parse("terraform has applied {count:d} microVMs"))
@when(parsers.parse("terraform has applied {count:d} microVMs"))
def _applied(fleet: Fleet, count: int) -> None:
    _declared(fleet, count)
    fleet.apply()
    fleet.before |= {name: fleet.get(name) for name in fleet.microvms}


@given(parsers.parse('microVM "{name}" has drift_policy "report"'))
def _report(fleet: Fleet, name: str) -> None:
    fleet.microvms[name]["drift_policy"] = '"report"'
    fleet.apply()


@given("every request goes to one follower")
def _follower(fleet: Fleet) -> None:
    layout = fleet.cluster.layout
    leader = leader_of(fleet.cluster, fleet.client)
    follower = next(node.name for node in layout.plan.nodes if node.name != leader)
    fleet.client = fleet.cluster.client(node=follower)
    environment = {**fleet.terraform.env, "FLINTLOCK_ENDPOINTS": layout.endpoint(follower)}
    fleet.terraform = Terraform(fleet.terraform.flavor, fleet.terraform.workdir, environment)
    fleet.before["follower"] = follower


@given("somebody watches every host for second copies")
def _watched(copies: SecondCopies) -> None:
    copies.start()


# -- Then, shared ------------------------------------------------------------------------------------------------------


@when("terraform applies")
def _apply(fleet: Fleet) -> None:
    fleet.apply()


@when("terraform destroys everything")
def _destroy(fleet: Fleet) -> None:
    fleet.terraform.destroy()


@then(parsers.parse("every microVM is ready within {seconds:d} seconds"))
def _ready(fleet: Fleet, seconds: int) -> None:
    within(
        seconds,
        lambda: all(fleet.get(name)["status"]["ready"] for name in fleet.microvms),
        "every microVM is ready",
    )


@then("a plan is empty, with and without refresh")
def _plan_empty(fleet: Fleet) -> None:
    for arguments in (("-refresh=false",), ()):
        planned = fleet.terraform.plan(*arguments)
        assert planned.exit_code == 0, planned.output


@then("no microVM ever ran twice")
def _never_twice(copies: SecondCopies) -> None:
    seen = copies.looks
    within(10, lambda: copies.looks > seen, "the watcher looks again")
    assert copies.found == []


@then(parsers.parse("no host has anything within {seconds:d} seconds"))
def _nothing(fleet: Fleet, seconds: int) -> None:
    def empty() -> bool:
        hosts = [host.name for host in fleet.cluster.layout.plan.hosts]
        return not fleet.items("/microvms") and all(not listed(fleet, host) for host in hosts)

    within(seconds, empty, "no microVM is left")


@then(parsers.parse('microVM "{name}" is in sync and running within {seconds:d} seconds'))
def _in_sync(fleet: Fleet, name: str, seconds: int) -> None:
    def settled() -> bool:
        status = fleet.get(name)["status"]
        return status["drift"]["class"] == "in_sync" and status["power_state"] == "running"

    within(seconds, settled, f"{name} is in sync")


def listed(fleet: Fleet, host: str) -> list[str]:
    """The microVMs that the host's driver has, a line each, from its own file."""
    return [line for line in fleet.tamper("list", host=host).splitlines() if not line.startswith("lease\t")]


def starts_of(fleet: Fleet, name: str) -> int:
    """How often the guest was started, as its console shows; waits for its host's agent if it is on its way."""

    def console() -> str | None:
        try:
            path = f"/namespaces/fleet/microvms/{name}/console"
            return fleet.client.get(path, {"offset": 0, "limit": 65536}).text
        except ProblemError as problem:
            if problem.code != "host_unreachable":
                raise
            return None

    return within(20, console, f"the console of {name} can be read").count(" started with ")
