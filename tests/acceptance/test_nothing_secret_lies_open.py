"""A whole run of a real cluster with a real guest, and then a search for every secret that was in it.

Every file of nodes and agents, a snapshot, what Terraform and flintctl print, every list of the API, every event, and
the command lines of the processes. A canary that is declared in the open shows that the search finds what is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from acceptance.terraform.runner import Terraform, has_path_terraform
from support.scanner import found_below, found_in

from controlplane.cli.dev import processes, setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.progress import Progress

pytestmark = [pytest.mark.qemu, pytest.mark.xdist_group("guests"), pytest.mark.timeout(300)]
PASSWORD, ANOTHER = "correct-horse-battery-staple", "tr0ub4dor-and-three-more"
EVENTS_S = 3.0
"""How long events of the past are read."""
CANARY = "canary-that-lies-in-the-open"
HCL = """
terraform {
  required_providers {
    flintlock = { source = "microscaler/flintlock" }
  }
}

variable "password" {
  type      = string
  sensitive = true
}

resource "flintlock_host" "h1" {
  name = "h1"
}

resource "flintlock_namespace" "demo" {
  name = "demo"
}

resource "flintlock_microvm" "web" {
  name         = "web"
  namespace    = flintlock_namespace.demo.name
  vcpu         = 1
  memory_in_mb = 128
  kernel       = { image = "demo/kernel" }
  initrd       = { image = "demo/initrd:1" }
  metadata     = { canary = "CANARY" }

  sensitive_metadata = { password = var.password }
  depends_on         = [flintlock_host.h1]
}
""".replace("CANARY", CANARY)


@dataclass
class Run:
    cluster: DevCluster
    terraform: Terraform
    said: list[str] = field(default_factory=list)
    """What programs printed."""

    @property
    def directory(self) -> Path:
        return self.cluster.layout.directory

    def terraform_does(self, *arguments: str, password: str) -> None:
        self.terraform.env = {**self.terraform.env, "TF_VAR_password": password}
        self.said.append(self.terraform.run(*arguments, "-no-color", "-input=false").output)

    def flintctl(self, *arguments: str) -> str:
        environment = {**os.environ, **self.cluster.layout.environment}
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)
        assert done.returncode == 0, done.stderr
        self.said.append(done.stdout + done.stderr)
        return done.stdout

    def vm(self) -> dict[str, Any]:
        return self.cluster.client().get("/namespaces/demo/microvms/web").body

    def seed(self) -> bytes:
        (path,) = self.directory.glob("h1/qemu/vms/*/seed.iso")
        return path.read_bytes()


@pytest.fixture
def run(tmp_path: Path, mirror: Path) -> Iterator[Run]:
    if shutil.which("qemu-system-x86_64") is None:
        pytest.skip("needs QEMU")
    layout = setup.create(tmp_path / "c", nodes=1, hosts=1, driver="qemu", say=lambda _: None)
    cluster = DevCluster(layout, Progress())
    workdir = tmp_path / "terraform"
    workdir.mkdir()
    environment = {**layout.environment, "TF_CLI_CONFIG_FILE": str(mirror)}
    try:
        cluster.start()
        cluster.await_ready()
        yield Run(cluster, Terraform("path" if has_path_terraform() else "lib", workdir, environment))
    finally:
        left = cluster.purge()
        assert not left, left


def answers(run: Run) -> dict[str, bytes]:
    """Every list and everything else that is read without naming an object, and the events so far."""
    session = requests.Session()
    session.trust_env, session.verify = False, str(run.cluster.layout.ca_file)
    session.headers["Authorization"] = f"Bearer {run.cluster.layout.environment['FLINTLOCK_TOKEN']}"
    base = run.cluster.layout.endpoints[0]
    paths = session.get(f"{base}/api/v2/openapi.json", timeout=30).json()["paths"]
    plain = sorted(
        path for path, each in paths.items() if "get" in each and "{" not in path and path != "/api/v2/watch"
    )
    found = {path: session.get(base + path, timeout=30).content for path in plain}
    found["why"] = session.get(f"{base}/api/v2/namespaces/demo/microvms/web/why", timeout=30).content
    found["watch"] = b""
    end = time.monotonic() + EVENTS_S
    with (
        suppress(requests.ConnectionError),
        session.get(f"{base}/api/v2/watch?from=0", timeout=1, stream=True) as events,
    ):
        for line in events.iter_lines():
            found["watch"] += line + b"\n"
            if time.monotonic() > end:
                break
    return found


def command_lines(run: Run) -> bytes:
    found = b""
    for name in run.cluster.layout.names:
        parent = processes.recorded(run.cluster.layout.run_file(name))
        assert parent is not None
        for each in processes.session_of(parent):
            found += Path(f"/proc/{each.pid}/cmdline").read_bytes()
    return found


def test_no_secret_is_found_but_where_it_has_to_be(run: Run, tmp_path: Path) -> None:
    client = run.cluster.client()
    run.terraform.write(HCL)
    run.terraform.init()
    run.terraform_does("plan", password=PASSWORD)
    run.terraform_does("apply", "-auto-approve", password=PASSWORD)
    assert found_in(run.seed(), {"password": PASSWORD}) == {"password"}, "the guest has it"
    run.terraform_does("plan", password=ANOTHER)
    run.terraform_does("apply", "-auto-approve", password=ANOTHER)
    assert found_in(run.seed(), {"password": ANOTHER, "old": PASSWORD}) == {"password"}, "the other, once it restarted"
    run.terraform_does("plan", "-detailed-exitcode", password=ANOTHER)
    token = client.request("POST", "/api-tokens", body={"name": "ci"}).body["secret"]
    run.flintctl("secrets", "rotate", "--wait-s", "30")
    run.flintctl("vm", "restart", "demo/web")
    for shown in (["vm", "show", "demo/web", "-o", "yaml"], ["vm", "list", "-A"], ["audit", "list"], ["drift"]):
        run.flintctl(*shown)
    saved = tmp_path / "snapshot"
    run.flintctl("snapshot", "save", str(saved))

    layout = run.cluster.layout
    key = json.loads(layout.keys_file.read_text())["keys"][0]["key"]
    node_key = layout.pki("n1").joinpath("n1.key").read_text().splitlines()[1]
    operator = layout.environment["FLINTLOCK_TOKEN"]
    secrets = {"old": PASSWORD, "password": ANOTHER, "api token": token, "ring": key, "operator": operator}
    secrets["node key"] = node_key

    uid = run.vm()["uid"]
    assert found_below(run.directory, secrets) == {
        ("password", f"h1/qemu/vms/{uid}/seed.iso"),
        ("password", f"h1/qemu/vms/{uid}/sensitive.json"),
        ("ring", "sealing-keys.json"),
        ("operator", "token"),
        ("node key", "pki/n1/n1.key"),
    }
    for name in (f"h1/qemu/vms/{uid}/seed.iso", f"h1/qemu/vms/{uid}/sensitive.json", "sealing-keys.json", "token"):
        assert run.directory.joinpath(name).stat().st_mode & 0o077 == 0, name
    assert found_below(saved, secrets) == set()
    told = answers(run)
    assert {path: found for path, text in told.items() if (found := found_in(text, secrets))} == {}
    assert found_in("".join(run.said).encode(), secrets) == set()
    assert found_in(command_lines(run), secrets) == set()

    # The search bites: what was declared in the open is in all of these.
    canary = {"canary": CANARY}
    where = {path for _, path in found_below(run.directory, canary)}
    assert any(path.startswith("n1/") for path in where), "the log"
    assert any(path.endswith("definition.json") for path in where), "the agent's records"
    assert found_below(saved, canary)
    assert {"/api/v2/microvms", "watch"} <= {path for path, text in told.items() if found_in(text, canary)}
    assert found_in("".join(run.said).encode(), canary)
    run.terraform_does("destroy", "-auto-approve", password=ANOTHER)
    assert found_below(run.directory / "h1", secrets) == set(), "it went with its guest"
