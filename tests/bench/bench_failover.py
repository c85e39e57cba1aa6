"""How long a microVM is away when its host is lost: until the host is suspect, detached, fenced, and it runs elsewhere.

    python -m tests.bench.bench_failover [--losses 200] [--at-once 4] [--hosts 10] [--with-leader]
        [--directory .work/failover]

A real cluster with the shipped times: three nodes and ten simulated hosts, each agent a process of its own. More hosts
than ten share one process, hold leases like the others, and are never lost. A round kills some agents at once (and the
node that leads, with --with-leader), waits until everything that was there is ready elsewhere, starts them again, and
waits until they are back without what was given up there; a host that is the only one has no microVM. Times are counted
from the kill to the first look, ten a second, at which the API says so. Runs add up.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import random
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.tally import Tally
from bench.world import shared_agents
from support.cluster import items, leader_of, within

from controlplane.cli.client import Client
from controlplane.cli.dev import setup
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.layout import Layout
from controlplane.cli.dev.progress import Progress

HOSTS = 10
"""So many can be lost, whatever --hosts says."""
MICROVMS = 20
NAMESPACE = "failover"
PHASES = ("suspect", "detached", "fenced")
LOOK_S = 0.1
PATIENCE_S = 120.0
GRANTED_S = 3.0
"""After which every host that is ready has a lease again: one that had none would be fenced sooner."""
SPEC = {
    "vcpu": 1,
    "memory_in_mb": 64,
    "kernel": {"image": "demo/kernel:6.1"},
    "recovery": {"on_host_failure": "restart_elsewhere"},
}


@dataclass
class Loss:
    """One lost host; seconds after the kill."""

    host: str
    microvms: frozenset[str]
    phases: dict[str, float] = field(default_factory=dict[str, float])
    ready: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def over(self) -> bool:
        return "fenced" in self.phases and len(self.ready) == len(self.microvms)

    def look(self, at_s: float, phase: str, microvms: Mapping[str, dict[str, Any]]) -> None:
        if phase in PHASES:
            self.phases.setdefault(phase, at_s)
        for uid in self.microvms - self.ready.keys():
            status = microvms[uid]["status"]
            if status["ready"] and status["host"] not in (None, self.host):
                self.ready[uid] = at_s


class World:
    """`everything` is the layout of all hosts, `cluster` that of those that can be lost."""

    def __init__(self, cluster: DevCluster, everything: Layout) -> None:
        self.cluster = cluster
        self.client: Client = cluster.client()
        self.hosts = [host.name for host in cluster.layout.plan.hosts]
        self._declared = [host.name for host in everything.plan.hosts]

    def declare(self) -> None:
        resources: list[dict[str, Any]] = [{"kind": "Host", "name": host} for host in self._declared]
        resources.append({"kind": "Namespace", "name": NAMESPACE})
        resources += [
            {"kind": "MicroVM", "namespace": NAMESPACE, "name": f"vm-{number}", "spec": SPEC}
            for number in range(MICROVMS if len(self._declared) > 1 else 0)
        ]
        self.client.request("POST", "/apply", body={"atomic": True, "resources": resources})
        self.settle()

    def phase(self, host: str) -> str:
        return str(self.client.get(f"/hosts/{host}").body["status"]["phase"])

    def all_ready(self) -> bool:
        return self.client.get("/cluster").body["hosts"] == {"ready": len(self._declared)}

    def microvms(self) -> dict[str, dict[str, Any]]:
        return {item["uid"]: item for item in items(self.client, "/microvms")}

    def settle(self) -> None:
        """Every host is ready and holds no order, every microVM is ready."""
        within(PATIENCE_S, self.all_ready, "every host is ready")
        within(
            PATIENCE_S,
            lambda: all(each["status"]["ready"] for each in self.microvms().values()),
            "every microVM is ready",
        )

    def lose(self, hosts: list[str], *, with_leader: bool) -> list[Loss]:
        before = self.microvms()
        losses = [
            Loss(host, frozenset(uid for uid, each in before.items() if each["status"]["host"] == host))
            for host in hosts
        ]
        doomed = [*hosts, leader_of(self.cluster, self.client)] if with_leader else hosts
        began_s = time.monotonic()
        for name in doomed:
            self.cluster.kill_member(name)
        while not all(loss.over for loss in losses):
            at_s = time.monotonic() - began_s
            assert at_s < PATIENCE_S, f"not over after {at_s:.0f} s: {losses}"
            phases, microvms = [self.phase(loss.host) for loss in losses], self.microvms()
            at_s = time.monotonic() - began_s
            for loss, phase in zip(losses, phases, strict=True):
                loss.look(at_s, phase, microvms)
            time.sleep(LOOK_S)
        self.cluster.start()
        self.cluster.await_ready()
        self.settle()
        return losses


def section(hosts: int, *, with_leader: bool) -> str:
    return f"lost{' with the leader' if with_leader else ''}{f' of {hosts}' if hosts != HOSTS else ''}"


@contextmanager
def running_world(hosts: int) -> Iterator[World]:
    with TemporaryDirectory(prefix="bench-") as directory:
        layout = setup.create(Path(directory) / "c", nodes=3, hosts=hosts, driver="simulated", say=lambda _: None)
        mortal = layout.plan.model_copy(update={"hosts": layout.plan.hosts[:HOSTS]})
        cluster = DevCluster(Layout(layout.directory, mortal), Progress())
        try:
            cluster.start()
            cluster.await_ready()
            with ExitStack() as others:
                if hosts > HOSTS:
                    others.enter_context(shared_agents(layout, layout.plan.hosts[HOSTS:]))
                world = World(cluster, layout)
                world.declare()
                yield world
        finally:
            left = cluster.purge()
            assert not left, left


def measure(tally: Tally, *, losses: int, at_once: int, hosts: int, with_leader: bool) -> None:
    chance = random.Random()
    with running_world(hosts) as world:
        done = 0
        while done < losses:
            lost = chance.sample(world.hosts, min(at_once, losses - done))
            time.sleep(GRANTED_S)
            for loss in world.lose(lost, with_leader=with_leader):
                tally.add(
                    section(hosts, with_leader=with_leader),
                    hosts=hosts,
                    at_once=at_once,
                    phases={name: round(at_s, 2) for name, at_s in loss.phases.items()},
                    ready=sorted(round(at_s, 2) for at_s in loss.ready.values()),
                )
            done += len(lost)
            print(f"  {done} of {losses} hosts lost and back", flush=True)


def report(tally: Tally, name: str) -> None:
    lines = tally.lines(name)
    times = {phase: [line["phases"][phase] for line in lines if phase in line["phases"]] for phase in PHASES}
    times["ready elsewhere"] = [at_s for line in lines for at_s in line["ready"]]
    print(f"{name}: {len(lines)} hosts in {tally.path}; seconds after the loss")
    print(f"  {'':16} {'times':>6} {'min':>6} {'median':>7} {'p90':>6} {'p99':>6} {'max':>6}")
    for what, values in times.items():
        if values:
            values.sort()
            p50, p90, p99 = (values[min(len(values) - 1, round(len(values) * part))] for part in (0.5, 0.9, 0.99))
            print(f"  {what:16} {len(values):6} {values[0]:6.1f} {p50:7.1f} {p90:6.1f} {p99:6.1f} {values[-1]:6.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=4, choices=range(1, HOSTS // 2 + 1), metavar="N")
    parser.add_argument("--hosts", type=int, default=HOSTS, help=f"in all; {HOSTS} of them can be lost")
    parser.add_argument("--with-leader", action="store_true", help="the node that leads is lost at the same moment")
    parser.add_argument("--directory", type=Path, default=Path(".work/failover"))
    options = parser.parse_args()
    tally = Tally(options.directory)
    at_once = min(options.at_once, max(options.hosts // 2, 1))
    measure(tally, losses=options.losses, at_once=at_once, hosts=options.hosts, with_leader=options.with_leader)
    report(tally, section(options.hosts, with_leader=options.with_leader))


if __name__ == "__main__":
    main()
