"""kill -9 at a random point of a `terraform apply` against a real cluster, and what has to hold afterwards.

Round n applies fleet n to a cluster that has fleet n - 1: some microVMs are made, some changed, some replaced, some
destroyed. Both fleets, who is killed and when follow from n alone. Whoever was killed, the next apply converges: the
API, the hosts' drivers and Terraform's state have the same microVMs, and plans with and without refresh are empty.

Terraform writes its local state in place, so its own death may leave an empty or a torn file. A user then takes the
backup that Terraform wrote before, and so does a round: what the killed apply did since has to be found again.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Literal

from acceptance.terraform.runner import Terraform
from acceptance.terraform.steps import HEADER, assert_plan_empty
from support.cluster import assert_witnesses_agree, command_line, declared, leader_of, make_whole

from controlplane.cli.dev import processes
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.processes import ProcessId

Victim = Literal["terraform", "provider", "api", "leader"]
VICTIMS: Final[tuple[Victim, ...]] = ("terraform", "provider", "api", "leader")
"""`api`: the node that the provider asks first; of nodes, every process is killed."""
SLOTS: Final = 8
NAMESPACE: Final = "kills"
APPLY_TIMEOUT_S: Final = 180.0
_PARALLELISM = "-parallelism=3"
"""So that there are many points to be killed at: a simulated guest takes half a second to run."""


@dataclass(frozen=True, slots=True)
class Round:
    number: int
    victim: Victim
    killed_after_s: float
    late: bool
    """It was all over before anybody could be killed."""
    exit_code: int
    """Of the apply in which somebody was killed."""
    state: Literal["whole", "backup"]
    microvms: int


@contextmanager
def running(tf: Terraform, command: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """Terraform in the background; gone at the end, with its provider."""
    process = tf.start(command, "-no-color", "-input=false", "-auto-approve", *arguments)
    started = processes.identify(process.pid)
    assert started is not None
    try:
        yield process
        process.communicate(timeout=APPLY_TIMEOUT_S)
    finally:
        processes.kill(processes.session_of(started))
        process.wait(timeout=10)


def provider_of(terraform: subprocess.Popen[str]) -> list[ProcessId]:
    leader = processes.identify(terraform.pid)
    if leader is None:
        return []
    return [each for each in processes.session_of(leader) if b"provider_shim" in command_line(each)]


def fleet(number: int) -> dict[str, dict[str, object]]:
    """The microVMs of fleet `number`, by name; fleet -1 has none."""
    chance = random.Random(f"fleet {number}")
    return {
        f"vm-{slot}": {
            "memory": chance.choice([64, 128]),
            "label": chance.choice(["a", "b", "c"]),
            "root": chance.choice(["demo/root:1", "demo/root:2"]),
        }
        for slot in range(SLOTS)
        if number >= 0 and chance.random() < 0.75
    }


def configuration(number: int) -> str:
    return (
        HEADER
        + f"""
resource "flintlock_host" "this" {{
  for_each = toset(["h1", "h2", "h3"])
  name     = each.key
}}

resource "flintlock_namespace" "this" {{
  name = "{NAMESPACE}"
}}

resource "flintlock_microvm" "vm" {{
  for_each     = {json.dumps(fleet(number))}
  name         = each.key
  namespace    = flintlock_namespace.this.name
  labels       = {{ of = each.value.label }}
  vcpu         = 1
  memory_in_mb = each.value.memory
  kernel       = {{ image = "demo/kernel:6.1" }}
  root_volume  = {{ container_source = each.value.root }}
  depends_on   = [flintlock_host.this]
}}
"""
    )


class Rounds:
    """Of one cluster and one working directory, in order."""

    def __init__(self, cluster: DevCluster, tf: Terraform) -> None:
        self._cluster = cluster
        self._tf = tf
        self._usual_s = 0.0
        """How long an apply takes here and now."""

    def prepare(self, number: int) -> None:
        """Have fleet `number - 1`."""
        self._tf.write(configuration(number - 1))
        self._tf.init()
        began = time.monotonic()
        self._tf.apply(_PARALLELISM)
        self._usual_s = time.monotonic() - began

    def play(self, number: int, victim: Victim | None = None) -> Round:
        """Raises AssertionError where anything is lost, twice there, or left over."""
        chance = random.Random(f"kill {number}")
        chosen = chance.choice(VICTIMS)
        victim = victim or chosen
        delay_s = chance.uniform(0.2, 1.0) * self._usual_s
        self._tf.write(configuration(number))
        with running(self._tf, "apply", _PARALLELISM) as applying:
            time.sleep(delay_s)
            late = not self._kill(victim, applying)
            output, _ = applying.communicate(timeout=APPLY_TIMEOUT_S)
        survived = victim in ("api", "leader") or late
        assert applying.returncode == 0 or not survived, f"the apply did not outlive the death of {victim}:\n{output}"
        make_whole(self._cluster)
        state = self._whole_state()
        self._tf.apply(_PARALLELISM)
        self._check(number)
        # A machine is slower and faster by turns: so that most kills fall into an apply, and not always into its start.
        self._usual_s *= 0.7 if late else 1.1
        return Round(number, victim, round(delay_s, 2), late, applying.returncode, state, len(fleet(number)))

    def _kill(self, victim: Victim, applying: subprocess.Popen[str]) -> bool:
        """Whether there was anybody to kill."""
        if applying.poll() is not None:
            return False
        if victim == "terraform":
            provider = provider_of(applying)
            applying.kill()
            # It sees that it is alone, and ends by itself once what it does is done.
            assert processes.await_end(provider, timeout_s=60), "the provider outlives its Terraform"
            return True
        if victim == "provider":
            provider = provider_of(applying)
            return bool(provider) and processes.kill(provider)
        first = self._cluster.layout.plan.nodes[0].name
        self._cluster.kill_member(first if victim == "api" else leader_of(self._cluster))
        return True

    def _whole_state(self) -> Literal["whole", "backup"]:
        file = self._tf.workdir / "terraform.tfstate"
        try:
            json.loads(file.read_text(encoding="utf-8"))
        except ValueError:
            shutil.copy(file.with_name("terraform.tfstate.backup"), file)
            return "backup"
        return "whole"

    def _check(self, number: int) -> None:
        wanted = fleet(number)
        assert_witnesses_agree(self._cluster, self._tf, count=len(wanted))
        names = [name for name, _, _ in declared(self._cluster.client())]
        assert names == [f"{NAMESPACE}/{name}" for name in sorted(wanted)]
        assert_plan_empty(self._tf)
