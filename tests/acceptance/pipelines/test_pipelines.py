"""The example pipelines do what they promise: their own commands, on a real cluster, with drift that was made for real.

Between detection and repair each pipeline gets a fresh machine, with nothing of the first but its reports: what a job
leaves on its runner must not be what the next one works with.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import run
from threading import Timer
from typing import Any

import pytest
from acceptance.pipelines.checkout import EXAMPLES, Machine, checkout, install_programs
from acceptance.pipelines.systems import SYSTEMS, System
from acceptance.terraform.runner import Flavor, Terraform, has_path_terraform
from acceptance.terraform.steps import HEADER
from junitparser import JUnitXml
from support.cluster import make_empty, make_whole, within

from controlplane.cli.client import Client
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.errors import ProblemError

FLAVOR: Flavor = "path" if has_path_terraform() else "lib"
MICROVM = "web-a"
JOBS = ("detect", "repair")


@dataclass
class World:
    """A cluster on which an administrator has applied `access/`, and the repair token the fleet."""

    cluster: DevCluster
    client: Client
    directory: Path
    programs: Path
    variables: dict[str, str]
    tokens: dict[str, str] = field(default_factory=dict[str, str])

    def machine(self, *, reports: Path | None = None) -> Machine:
        return checkout(Path(tempfile.mkdtemp(dir=self.directory)) / "work", self.programs, self.variables, reports)

    def status(self) -> dict[str, Any]:
        return self.client.get(f"/namespaces/web/microvms/{MICROVM}").body["status"]

    def drift(self) -> None:
        """End the guest behind everybody's back, and wait until the control plane knows."""
        state = self.cluster.layout.driver_state(self.status()["host"])
        command = [sys.executable, "-m", "controlplane.drivers.simulated", "kill", "--state-dir", str(state)]
        run([*command, f"web/{MICROVM}"], check=True, capture_output=True, timeout=30)
        within(20, lambda: self.status()["drift"]["class"] == "drifted", "the drift is known")

    def repaired(self) -> None:
        """As an administrator has it repaired, whatever an earlier test left."""
        if self.is_drifted():
            self.client.request("POST", f"/namespaces/web/microvms/{MICROVM}/actions/repair", body={})
        within(20, lambda: self.status()["drift"]["class"] == "in_sync", "there is no drift")

    def is_drifted(self) -> bool:
        return self.status()["power_state"] == "stopped"


@pytest.fixture(scope="module")
def world(running_cluster: DevCluster, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    make_whole(running_cluster)
    layout = running_cluster.layout
    directory = tmp_path_factory.mktemp("pipelines")
    (directory / "backend.hcl").write_text(f'path = "{directory}/terraform.tfstate"\n')
    variables = {name: layout.environment[name] for name in ("FLINTLOCK_ENDPOINTS", "FLINTLOCK_CA_FILE")}
    variables |= {"TF_CLI_CONFIG_FILE": str(mirror), "BACKEND_CONFIG": str(directory / "backend.hcl")}
    variables |= {"CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1", "TF_CLI_ARGS": "-no-color"}
    made = World(running_cluster, running_cluster.client(), directory, install_programs(directory / "bin"), variables)
    try:
        set_up(made)
        yield made
    finally:
        for job in JOBS:
            made.client.request("DELETE", f"/api-tokens/drift-{job}")
        make_empty(running_cluster)


def set_up(world: World) -> None:
    """What an administrator does, once; then the fleet is made with no more rights than the repair has."""
    layout = world.cluster.layout
    for host in layout.plan.hosts:
        world.client.request("PUT", f"/hosts/{host.name}", body={"spec": {}})
    readme = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    (commands,) = re.findall(r"```sh\n(.*?)```", readme, re.DOTALL)
    made = world.machine()
    done = made.run(commands, {"FLINTLOCK_TOKEN": layout.environment["FLINTLOCK_TOKEN"]})
    assert done.code == 0, done.output
    for job in JOBS:
        world.tokens[f"FLINTLOCK_{job.upper()}_TOKEN"] = (made.directory / f"drift-{job}.token").read_text().strip()
    access = world.directory / "access"
    access.mkdir()
    admin = {**layout.environment, "TF_CLI_CONFIG_FILE": world.variables["TF_CLI_CONFIG_FILE"]}
    terraform = Terraform(FLAVOR, access, admin)
    terraform.write((EXAMPLES / "access" / "main.tf").read_text(encoding="utf-8"))
    terraform.init()
    terraform.apply()
    machine = world.machine()
    steps = [
        'terraform fmt -check -diff . "$ACCESS"',
        'terraform init -backend-config="$BACKEND_CONFIG"',
        "terraform apply -auto-approve",
    ]
    repair = {"FLINTLOCK_TOKEN": world.tokens["FLINTLOCK_REPAIR_TOKEN"], "ACCESS": str(access)}
    within(20, lambda: _may_list(world, repair["FLINTLOCK_TOKEN"]), "every node knows the new token")
    done = machine.run("\n".join(steps), repair, within="fleet")
    assert done.code == 0, done.output


def _may_list(world: World, token: str) -> bool:
    layout = world.cluster.layout
    try:
        for endpoint in layout.endpoints:
            Client([endpoint], token, layout.ca_file, retry_for_s=0).get("/namespaces/web/microvms")
    except ProblemError:
        return False
    return True


@pytest.fixture
def system(request: pytest.FixtureRequest, world: World) -> System:
    return SYSTEMS[request.param](world.tokens)


@pytest.mark.parametrize("system", SYSTEMS, indirect=True)
def test_drift_is_found_told_and_repaired_after_the_approval(world: World, system: System) -> None:
    assert system.gate()
    uid = world.client.get(f"/namespaces/web/microvms/{MICROVM}").body["uid"]
    world.repaired()
    world.drift()
    first = world.machine()
    found = system.detect(first)
    assert found.code == 2, found.output
    assert world.is_drifted(), "detection repaired something"
    second = world.machine(reports=first.reports)
    repaired = system.repair(second)
    assert repaired.code == 0, repaired.output
    after = world.client.get(f"/namespaces/web/microvms/{MICROVM}").body
    assert (after["uid"], after["status"]["power_state"], after["status"]["drift"]["class"]) == (
        uid,
        "running",
        "in_sync",
    )


def test_nothing_to_do_is_zero_and_every_report_is_there(world: World) -> None:
    world.repaired()
    machine = world.machine()
    done = SYSTEMS["systemd"](world.tokens).detect(machine)
    assert done.code == 0, done.output
    assert {path.name for path in machine.reports.iterdir()} == {
        "plan.out",
        "drift.xml",
        "drift.sarif",
        "drift.md",
        "drift.json",
    }
    assert [suite.failures for suite in JUnitXml.fromfile(str(machine.reports / "drift.xml"))] == [0]


def test_the_token_of_detection_repairs_nothing(world: World) -> None:
    world.repaired()
    world.drift()
    machine = world.machine()
    jobs = SYSTEMS["gitlab-ci"]({**world.tokens, "FLINTLOCK_REPAIR_TOKEN": world.tokens["FLINTLOCK_DETECT_TOKEN"]})
    assert jobs.detect(machine).code == 2
    refused = jobs.repair(machine)
    assert refused.code == 1
    assert "token drift-detect may not" in " ".join(refused.output.split())
    assert world.is_drifted()


def test_a_check_on_the_data_source_warns_in_every_plan(world: World, tmp_path: Path) -> None:
    if not world.is_drifted():
        world.drift()
    environment = {**world.variables, "FLINTLOCK_TOKEN": world.tokens["FLINTLOCK_DETECT_TOKEN"]}
    terraform = Terraform(FLAVOR, tmp_path, environment)
    example = EXAMPLES.parent / "data-sources" / "flintlock_drift" / "data-source.tf"
    shown = 'output "fields" { value = data.flintlock_drift.web.microvms[*].fields[0].pointer }'
    terraform.write(HEADER + example.read_text(encoding="utf-8") + shown)
    terraform.init()
    planned = terraform.plan()
    assert f"Drift: {MICROVM}" in planned.plain, planned.output
    assert "/spec/power_state" in planned.plain


def test_a_plan_that_the_policy_forbids_is_an_error(world: World) -> None:
    machine = world.machine()
    main = machine.directory / "fleet" / "main.tf"
    main.write_text(main.read_text(encoding="utf-8").replace(', team = "web"', ""), encoding="utf-8")
    done = SYSTEMS["systemd"](world.tokens).detect(machine)
    assert done.code == 1
    assert 'FAIL - flintlock_microvm.web["a"] has no label `team`' in done.output


def test_a_control_plane_that_does_not_answer_is_an_error(world: World) -> None:
    machine = world.machine()
    done = SYSTEMS["systemd"]({"FLINTLOCK_DETECT_TOKEN": "not-a-token"}).detect(machine)
    assert done.code == 1
    assert not (machine.reports / "drift.md").exists()


def test_a_watch_runs_a_program_when_drift_appears(world: World) -> None:
    world.repaired()
    machine = world.machine()
    token = {"FLINTLOCK_TOKEN": world.tokens["FLINTLOCK_DETECT_TOKEN"]}
    timer = Timer(1.0, world.drift)
    timer.start()
    done = machine.run(
        "flintctl drift watch -n web --exec 'tee notice.json' --debounce 0.1 --every 3600 --limit 1", token
    )
    timer.join()
    assert done.code == 0, done.output
    notice = json.loads((machine.directory / "notice.json").read_text())
    assert (notice["what"], notice["findings"][0]["resource"]) == ("appeared", f"MicroVM web/{MICROVM}")
