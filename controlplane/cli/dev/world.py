"""What the demonstration looks at and lays hands on: the cluster, Terraform, and the microVMs themselves."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from controlplane.cli.client import Client
from controlplane.cli.commands import provider
from controlplane.cli.dev import leftovers, processes, terraform
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.progress import Progress
from controlplane.cli.dev.terraform import Terraform
from controlplane.cli.errors import CliError
from controlplane.cli.values import Json, dig, objects, text

T = TypeVar("T")
TERRAFORM_TIMEOUT_S = 400.0
NAMESPACE = "demo"
_POLL_S = 0.1
_QUICKSTART = Path(__file__).resolve().parents[3] / "examples" / "quickstart"


class ExpectationError(CliError):
    """Something is not as the demonstration promises."""


def expect(holds: object, message: str) -> None:
    if not holds:
        raise ExpectationError(message)


@dataclass
class World:
    cluster: DevCluster
    terraform: Terraform
    terraform_source: str
    progress: Progress
    taps: set[str]
    """Every tap that a microVM of ours was seen to have."""

    @property
    def real(self) -> bool:
        """Real guests, as opposed to simulated ones."""
        return self.cluster.layout.plan.driver == "qemu"

    @property
    def client(self) -> Client:
        return self.cluster.client()

    def await_(self, look: Callable[[], T | None], what: str, *, timeout_s: float) -> T:
        """The first answer of `look` that is not None. Raises ExpectationError at the deadline."""
        give_up = time.monotonic() + timeout_s
        while (found := look()) is None:
            if time.monotonic() > give_up:
                raise ExpectationError(f"{what}: not within {timeout_s:.0f} s")
            self.progress.moving(f"Waiting: {what}")
            time.sleep(_POLL_S)
        return found

    def microvms(self) -> list[Json]:
        items = objects(self.client.get("/microvms", {"limit": 500}).body, "items")
        return sorted(items, key=lambda microvm: str(microvm.get("name")))

    def microvm(self, name: str) -> Json:
        return self.client.get(f"/namespaces/{NAMESPACE}/microvms/{name}").body

    def flintctl(self, *arguments: str, expect_code: int = 0) -> str:
        """What a user would see. Raises ExpectationError when the exit code is another one."""
        environ = {**os.environ, **self.cluster.layout.environment}
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environ)
        shown = f"flintctl {' '.join(arguments)}"
        expect(
            done.returncode == expect_code,
            f"{shown} ended with {done.returncode} instead of {expect_code}:\n{done.stdout}{done.stderr}",
        )
        return done.stdout

    def kill_guest(self, name: str) -> str:
        """Kill a microVM's process behind the control plane's back; gives what was killed."""
        microvm = self.microvm(name)
        if not self.real:
            host = text(dig(microvm, "status", "host"))
            state_dir = self.cluster.layout.data(host) / "simulated"
            leftovers.simulated(state_dir, "kill", f"{NAMESPACE}/{name}")
            return f"simulated microVM on {host}"
        identity = self.guest_process(microvm)
        expect(identity is not None and identity.signal(signal.SIGKILL), f"{name} has no process to kill")
        assert identity is not None
        expect(processes.await_end([identity], timeout_s=10), f"process {identity.pid} survived SIGKILL")
        return f"QEMU process {identity.pid}"

    def guest_process(self, microvm: Json) -> processes.ProcessId | None:
        """The QEMU process of a microVM, found by the uid in its mark and not by what the API says."""
        mark = f"/{microvm['uid']}/"
        return next((found for found, command in leftovers.vm_processes(self.cluster.layout) if mark in command), None)

    def runs(self, microvm: Json) -> bool:
        """Whether it really runs on its host, whatever the API says."""
        if self.real:
            return self.guest_process(microvm) is not None
        lines = leftovers.simulated_microvms(self.cluster.layout)
        return any(f"\t{NAMESPACE}/{microvm['name']}\t" in line and "\trunning\t" in line for line in lines)

    def is_current(self, microvm: Json) -> bool:
        """Whether what the API says is of the process that runs now, and not of one that ended since."""
        if not self.real:
            return self.runs(microvm)
        process = self.guest_process(microvm)
        return process is not None and dig(microvm, "status", "details", "pid") == str(process.pid)

    def await_healthy(self, name: str, *, timeout_s: float) -> Json:
        """Runs on its host, is ready, and the API says that it is in sync."""

        def look() -> Json | None:
            microvm = self.microvm(name)
            in_sync = dig(microvm, "status", "drift", "class") == "in_sync"
            ready = dig(microvm, "status", "ready") is True
            return microvm if in_sync and ready and self.is_current(microvm) else None

        return self.await_(look, f"{name} runs again, is ready and in sync", timeout_s=timeout_s)


def prepare_terraform(cluster: DevCluster, progress: Progress) -> tuple[Terraform, str]:
    """The provider in a mirror, the quickstart in a working directory; Terraform is not run yet. Raises CliError."""
    if not _QUICKSTART.is_dir():
        raise CliError(
            "the quickstart's Terraform files are not there", hint="run the demo from a checkout of the source"
        )
    laid_out = provider.lay_out(cluster.layout.mirror)
    workdir = cluster.layout.directory / "terraform"
    workdir.mkdir(exist_ok=True)
    for file in _QUICKSTART.glob("*.tf"):
        shutil.copy(file, workdir)
    found = terraform.find(progress.say)
    environ = {**cluster.layout.environment, "TF_CLI_CONFIG_FILE": str(laid_out["cli_config"])}
    return Terraform(found, workdir, environ, timeout_s=TERRAFORM_TIMEOUT_S), found.source


def taps_possible() -> bool:
    """Whether this user may make tap devices."""
    return os.geteuid() == 0 and os.access("/dev/net/tun", os.R_OK | os.W_OK)
