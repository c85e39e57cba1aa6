"""Everything that users get wrong, on a real cluster: one precise message that names the field, and nothing changes.

The tables are in `bad_input/`, a module for each way in; a row is what is wrong and what is said. After each row every
object that there is has the revision that it had before. (The state itself has one thing more: the audit chain tells of
the refusal.)
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from acceptance.bad_input import agents, api, flintctl, hcl, settings
from acceptance.bad_input.cases import ABSENT, AgentCase, ApiCase, CliCase, HclCase, SettingsCase
from acceptance.terraform.runner import Terraform, has_path_terraform
from acceptance.terraform.steps import HEADER
from support.cluster import items, make_empty, make_whole, within

from controlplane.cli.client import Client
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.errors import ProblemError
from controlplane.identity.authority import Authority

COLLECTIONS = (
    "namespaces",
    "hosts",
    "placementpolicies",
    "failoverpolicies",
    "gcpolicies",
    "roles",
    "rolebindings",
    "microvms",
)


@dataclass(frozen=True)
class World:
    """A cluster with one host admitted and `demo/web` running on it, and what the tables refer to."""

    cluster: DevCluster
    client: Client
    """Of one node, so that it has seen what it was asked for."""
    other: Path
    """The directory of another authority, with a certificate for a host h1."""
    terraform: Terraform

    def environ(self, **more: str) -> dict[str, str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("FLINTLOCK_")}
        return {**clean, **more}

    def run(self, *arguments: str, cwd: Path, environ: dict[str, str]) -> tuple[int, str]:
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        done = subprocess.run(command, cwd=cwd, env=environ, capture_output=True, text=True, timeout=60, check=False)
        return done.returncode, " ".join(f"{done.stdout} {done.stderr}".split())

    def settings(self, process: str, change: dict[str, Any]) -> dict[str, Any]:
        """The process's settings with some changed, or taken away."""
        document = yaml.safe_load(self.cluster.layout.settings(process).read_text())
        for path, value in change.items():
            *groups, last = path.split(".")
            target = document
            for group in groups:
                target = target[group]
            if value is ABSENT:
                del target[last]
            else:
                target[last] = self.located(value)
        return document

    def located(self, value: Any) -> Any:
        """Paths of the tables are below the cluster's directory, or in OTHER."""
        if not isinstance(value, str) or not value.startswith(("pki/", "OTHER/", "h1")):
            return value
        path = self.other / value.removeprefix("OTHER/") if value.startswith("OTHER/") else None
        return str(path or self.cluster.layout.directory / value)


@pytest.fixture(scope="module")
def world(running_cluster: DevCluster, mirror: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    make_whole(running_cluster)
    client = running_cluster.client(node="n1")
    client.request("PUT", "/hosts/h1", body={"spec": {}})
    client.request("PUT", "/namespaces/demo", body={"spec": {"max_vcpu": 16}})
    client.request("PUT", "/namespaces/demo/microvms/web", body=api.spec())
    within(
        20,
        lambda: client.get("/namespaces/demo/microvms/web", {"wait_for": "ready"}).headers["Flintlock-Wait"] == "done",
        "the microVM is ready",
    )
    directory = tmp_path_factory.mktemp("bad-input")
    cluster_id = running_cluster.layout.plan.cluster_id
    Authority.create(directory / "other", cluster_id=cluster_id).issue_host("h1", directory / "other")
    (directory / "work").mkdir()
    terraform = Terraform(
        "path" if has_path_terraform() else "lib",
        directory / "work",
        {**running_cluster.layout.environment, "TF_CLI_CONFIG_FILE": str(mirror)},
    )
    terraform.write(HEADER)
    terraform.init()
    yield World(running_cluster, client, directory / "other", terraform)
    make_empty(running_cluster)


@pytest.fixture(autouse=True)
def unchanged(world: World) -> Iterator[None]:
    """Whatever a test does, what is there is what was there."""

    def objects() -> dict[str, list[tuple[str, int]]]:
        return {
            collection: [(each["uid"], each["revision"]) for each in items(world.client, f"/{collection}")]
            for collection in COLLECTIONS
        }

    before = objects()
    yield
    assert objects() == before


def named(case: Any) -> str:
    return case.what


@pytest.mark.parametrize("case", api.CASES, ids=named)
def test_over_http(world: World, case: ApiCase) -> None:
    with pytest.raises(ProblemError) as caught:
        world.client.request(case.method, case.path, body=case.body, headers=case.headers)
    problem = caught.value.body
    assert (caught.value.status, problem["code"]) == (case.status, case.code), problem
    found = {error["pointer"]: error["message"] for error in problem.get("errors", [])}
    assert case.pointer in found or not case.pointer, problem
    assert case.message in found.get(case.pointer, ""), problem


@pytest.mark.parametrize("case", hcl.CASES, ids=named)
def test_in_hcl(world: World, case: HclCase) -> None:
    text = HEADER + case.hcl.replace("OTHER_CA", str(world.other / "ca.crt"))
    world.terraform.write(text)
    command, *rest = case.command
    refused = world.terraform.run(command, "-no-color", "-input=false", *rest, expect=1)
    assert f"Error: {case.summary}" in refused.plain, refused.output
    assert case.detail in refused.plain, refused.output
    assert refused.plain.count("Error: ") == 1, refused.output
    if case.line is not None:
        number = next(i for i, line in enumerate(text.splitlines(), 1) if case.line in line)
        assert f"on main.tf line {number}, in " in refused.plain, refused.output


@pytest.mark.parametrize(
    ("vcpu", "summary", "detail"),
    [
        ("64", "Applying this microVM will be refused as things are", "namespace demo allows 16"),
        ("12", "No host would take this microVM as things are", "h1: needs 12 vcpu, 7 of 8 are free"),
    ],
    ids=["quota", "room"],
)
def test_a_plan_says_what_applying_would_meet(world: World, vcpu: str, summary: str, detail: str) -> None:
    for checks, severity, code in (("warn", "Warning", 2), ("strict", "Error", 1), ("off", None, 2)):
        text = f'{HEADER}{hcl.vm(vcpu=vcpu)}provider "flintlock" {{\n  plan_checks = "{checks}"\n}}\n'
        world.terraform.write(text)
        said = world.terraform.plan(expect=code).plain
        if severity is None:
            assert summary not in said
        else:
            assert f"{severity}: {summary}" in said
            assert detail in said


@pytest.mark.parametrize("case", flintctl.CASES, ids=named)
def test_on_the_command_line(world: World, tmp_path: Path, case: CliCase) -> None:
    if case.file:
        (tmp_path / "a.yaml").write_text(case.file)
    environ = world.environ(**world.cluster.layout.environment, HOME=str(tmp_path))
    code, said = world.run(*case.arguments, cwd=tmp_path, environ=environ)
    assert code == case.code, said
    assert_said(case.said, said)


@pytest.mark.parametrize("case", settings.CASES, ids=named)
def test_in_settings(world: World, tmp_path: Path, case: SettingsCase) -> None:
    path = tmp_path / f"{case.process}.yaml"
    path.write_text(yaml.safe_dump(world.settings(case.process, case.change)))
    command = "node" if case.process.startswith("n") else "agent"
    code, said = world.run(
        command, "run", "--check", "--config", str(path), cwd=tmp_path, environ=world.environ(**case.environ)
    )
    assert code == 1, said
    assert_said(case.said, said)


@pytest.mark.parametrize("case", agents.CASES, ids=named)
def test_agents_that_are_started_wrongly(world: World, tmp_path: Path, case: AgentCase) -> None:
    state_dir = tmp_path / "state"
    for name, content in case.files.items():
        (state_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (state_dir / name).write_text(content)
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(world.settings("h1", {"state_dir": str(state_dir), **case.change})))
    log = tmp_path / "log"
    with log.open("wb") as output:
        agent = subprocess.Popen(
            [sys.executable, "-m", "controlplane.cli.main", "agent", "run", "--config", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=world.environ(),
        )
    try:
        if case.ends:
            assert agent.wait(timeout=30) in (1, 78), log.read_text()
            assert_said(case.said, log.read_text())
        else:
            within(30, said_in(log, case.said), f"the agent says {case.said}")
            assert agent.poll() is None, "it goes on trying: the cluster may be put right"
    finally:
        agent.terminate()
        agent.wait(timeout=20)


def test_a_driver_that_no_host_has_is_told_by_a_dry_run(world: World) -> None:
    """It is no error: a host that has it may come. Nothing says that better than why it has no place now."""
    answer = world.client.request(
        "PUT", "/namespaces/demo/microvms/bad", params={"dry_run": "true"}, body=api.spec(provider="qemu")
    )
    placement = answer.body["placement"]
    refused = {bid["host"]: bid["refused"] for bid in placement["bids"]}
    assert placement["host"] is None
    assert "qemu" in refused["h1"], refused


def said_in(log: Path, said: tuple[str, ...]) -> Callable[[], bool]:
    return lambda: all(text in log.read_text() for text in said)


def assert_said(expected: tuple[str, ...], said: str) -> None:
    missing = [text for text in expected if text not in said]
    assert missing == [], said
    assert "Traceback" not in said
