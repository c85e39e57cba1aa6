"""Many microVMs on simulated hosts: through real Terraform, and declared in batches through the API.

    python -m tests.bench.bench_vms [--short] [--json FILE]

One run starts three nodes and the agents of the hosts (real agents in one process), then
(a) plans, applies, plans again and destroys N `flintlock_microvm`, and as many `terraform_data` of the same size for
comparison: what Terraform takes by itself. Wall time, CPU seconds of each process, and the requests as the fronts saw
them (a GET during apply or destroy is a long poll, so its time is mostly waiting).
(b) declares M microVMs by POST /api/v2/apply and waits until all are ready; memory of the control plane's processes and
their CPU use when nothing happens.
Outcomes are asserted (all ready, on one host each, empty plan, nothing left); times are only reported.
"""

# ruff: noqa: T201 - a command that prints a table
from __future__ import annotations

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from acceptance.terraform.runner import Terraform, has_path_terraform
from bench import proc
from bench.world import NAMESPACE, AccessLog, World, running_world, within
from provider_shim.mirror import cli_config, lay_out

BATCH = 500
IDLE_S = 10.0
SETTLE_S = 3.0
_FIELDS = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}, "initrd": {"image": "demo/initrd:1"}}
MICROVMS = """
terraform {{
  required_providers {{
    flintlock = {{ source = "microscaler/flintlock" }}
  }}
}}

resource "flintlock_microvm" "this" {{
  count        = {count}
  name         = "vm-${{count.index}}"
  namespace    = "{namespace}"
  vcpu         = 1
  memory_in_mb = 128
  kernel       = {{ image = "demo/kernel:6.1" }}
  initrd       = {{ image = "demo/initrd:1" }}
}}
"""
BASELINE = """
resource "terraform_data" "this" {{
  count = {count}
  input = {{
    name         = "vm-${{count.index}}"
    namespace    = "{namespace}"
    vcpu         = 1
    memory_in_mb = 128
    kernel       = {{ image = "demo/kernel:6.1" }}
    initrd       = {{ image = "demo/initrd:1" }}
  }}
}}
"""


@dataclass
class Size:
    hosts: int
    terraform: int
    parallelisms: tuple[int, ...]
    batch: int
    idle_s: float


FULL = Size(hosts=20, terraform=1000, parallelisms=(10, 64), batch=10_000, idle_s=IDLE_S)
SHORT = Size(hosts=4, terraform=100, parallelisms=(10,), batch=500, idle_s=2.0)


@dataclass
class Requests:
    kind: str
    count: int
    mean_ms: float
    p99_ms: float
    errors: int


@dataclass
class Phase:
    name: str
    wall_s: float
    cpu_s: dict[str, float]
    """Seconds of CPU by process."""
    requests: list[Requests] = field(default_factory=list)


def summarized(log: AccessLog) -> list[Requests]:
    durations: dict[str, list[float]] = defaultdict(list)
    errors: dict[str, int] = defaultdict(int)
    for kind, status, duration_ms in log.requests():
        durations[kind].append(duration_ms)
        # A 404 ends the wait for a deletion.
        errors[kind] += status >= 500 or status in (400, 401, 409, 412, 422)
    found: list[Requests] = []
    for kind, values in sorted(durations.items()):
        values.sort()
        p99 = values[min(int(len(values) * 0.99), len(values) - 1)]
        found.append(Requests(kind, len(values), round(statistics.fmean(values), 1), round(p99, 1), errors[kind]))
    return found


def phase(world: World, name: str, terraform: Terraform, *arguments: str, expect: int = 0) -> Phase:
    """Run one Terraform command and say what it used."""
    log, before = world.access_log(), world.cpu()
    began = time.perf_counter()
    with terraform.start(arguments[0], "-no-color", "-input=false", *arguments[1:]) as process:
        sampler = proc.FamilyCpu(process.pid)
        sampler.start()
        try:
            output, _ = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    wall_s = time.perf_counter() - began
    own, provider = sampler.finish()
    assert process.returncode == expect, f"terraform {name} ended with {process.returncode}:\n{output[-3000:]}"
    used = proc.used_since(before, world.cpu())
    cpu = {"terraform": round(own, 2), "provider": round(provider, 2), **used}
    print(f"  {name:22} {wall_s:7.1f} s", flush=True)
    return Phase(name, round(wall_s, 2), cpu, summarized(log))


# -- (a) through Terraform ---------------------------------------------------------------------------------------------


def lifecycle(
    world: World, directory: Path, hcl: str, environment: dict[str, str], parallelism: int, *, managed: bool
) -> list[Phase]:
    """managed: what Terraform says is there has to be in the cluster."""
    directory.mkdir()
    terraform = Terraform("path" if has_path_terraform() else "lib", directory, environment)
    terraform.write(hcl)
    terraform.init()
    many = f"-parallelism={parallelism}"
    phases = [
        phase(world, "plan", terraform, "plan", many, "-out=plan", "-detailed-exitcode", expect=2),
        phase(world, "apply", terraform, "apply", many, "plan"),
    ]
    if managed:
        check_all_run(world)
    phases += [
        phase(world, "plan, nothing to do", terraform, "plan", many, "-detailed-exitcode"),
        phase(world, "destroy", terraform, "destroy", many, "-auto-approve"),
    ]
    if managed:
        check_nothing_left(world)
    return phases


def check_all_run(world: World) -> int:
    found = list(world.microvms())
    assert all(vm["status"]["power_state"] == "running" for vm in found)
    assert {vm["uid"] for vm in found} == world.in_drivers()
    return len(found)


def check_nothing_left(world: World) -> None:
    assert not list(world.microvms())
    assert not world.in_drivers()


def through_terraform(world: World, size: Size, scratch: Path) -> dict[str, Any]:
    mirror = scratch / "mirror"
    mirror.mkdir()
    lay_out(mirror, Path(sys.executable))
    environment = {**world.layout.environment, "TF_CLI_CONFIG_FILE": str(cli_config(mirror, mirror / "terraform.rc"))}
    measured: dict[str, Any] = {"microvms": size.terraform, "runs": []}
    shape = {"count": size.terraform, "namespace": NAMESPACE}
    print(f"terraform_data x {size.terraform}, -parallelism=10", flush=True)
    baseline = lifecycle(world, scratch / "baseline", BASELINE.format(**shape), environment, 10, managed=False)
    measured["baseline"] = [asdict(each) for each in baseline]
    for parallelism in size.parallelisms:
        print(f"flintlock_microvm x {size.terraform}, -parallelism={parallelism}, leader {world.leader()}", flush=True)
        directory = scratch / f"vms-{parallelism}"
        hcl = MICROVMS.format(**shape)
        phases = lifecycle(world, directory, hcl, environment, parallelism, managed=True)
        measured["runs"].append({"parallelism": parallelism, "phases": [asdict(each) for each in phases]})
    return measured


# -- (b) by batches ----------------------------------------------------------------------------------------------------


def by_batches(world: World, size: Size) -> dict[str, Any]:
    empty = {name: asdict(each) for name, each in world.memory().items()}
    idle_empty = idle(world, size.idle_s)
    before, began = world.cpu(), time.monotonic()
    for start in range(0, size.batch, BATCH):
        names = [f"batch-{number}" for number in range(start, min(start + BATCH, size.batch))]
        resources = [{"kind": "MicroVM", "namespace": NAMESPACE, "name": name, "spec": _FIELDS} for name in names]
        results = world.apply({"atomic": False, "resources": resources})
        assert len(results) == len(names)
        assert {each["outcome"] for each in results} == {"created"}
    declared_s = time.monotonic() - began
    print(f"  {size.batch} declared after {declared_s:.1f} s", flush=True)
    within(600, lambda: world.running() == size.batch, f"{size.batch} microVMs run")
    within(60, lambda: all(vm["status"]["ready"] for vm in world.microvms()), "every microVM is ready")
    ready_s = time.monotonic() - began
    print(f"  all ready after {ready_s:.1f} s", flush=True)
    used = proc.used_since(before, world.cpu())
    assert check_all_run(world) == size.batch
    time.sleep(SETTLE_S)
    measured = {
        "microvms": size.batch,
        "declared_s": round(declared_s, 1),
        "ready_s": round(ready_s, 1),
        "cpu_s": used,
        "memory_empty": empty,
        "memory": {name: asdict(each) for name, each in world.memory().items()},
        "idle_cpu_percent_empty": idle_empty,
        "idle_cpu_percent": idle(world, size.idle_s),
    }
    began = time.monotonic()
    for start in range(0, size.batch, BATCH):
        names = [f"batch-{number}" for number in range(start, min(start + BATCH, size.batch))]
        world.apply(
            {"resources": [], "delete": [{"kind": "MicroVM", "namespace": NAMESPACE, "name": name} for name in names]}
        )
    within(600, lambda: not next(world.microvms(), None), "every microVM is gone")
    measured["destroyed_s"] = round(time.monotonic() - began, 1)
    check_nothing_left(world)
    return measured


def idle(world: World, seconds: float) -> dict[str, float]:
    """CPU of each process in percent of one core while nothing is asked of the cluster."""
    before = world.cpu()
    time.sleep(seconds)
    used = proc.used_since(before, world.cpu())
    return {name: round(100 * value / seconds, 1) for name, value in used.items()}


# -- what is printed ---------------------------------------------------------------------------------------------------


def _grouped(cpu: dict[str, float]) -> dict[str, float]:
    """Processes of one role together."""
    total: dict[str, float] = defaultdict(float)
    for name, value in cpu.items():
        total[name.partition(" ")[0]] += value
    return dict(total)


ROLES = ("terraform", "provider", "front", "raft", "agents")


def print_terraform(measured: dict[str, Any]) -> None:
    base = {each["name"]: each for each in measured["baseline"]}
    print(f"\n{measured['microvms']} resources: wall seconds, ratio to terraform_data, CPU seconds by process")
    print(f"{'':36}{'wall':>8}{'ratio':>8}" + "".join(f"{role:>11}" for role in ROLES))
    rows: list[tuple[str, Sequence[dict[str, Any]]]] = [("terraform_data, p=10", measured["baseline"])]
    rows += [(f"flintlock_microvm, p={run['parallelism']}", run["phases"]) for run in measured["runs"]]
    for label, phases in rows:
        for each in phases:
            cpu = _grouped(each["cpu_s"])
            ratio = each["wall_s"] / base[each["name"]]["wall_s"]
            cells = "".join(f"{cpu.get(role, 0.0):11.1f}" for role in ROLES)
            print(f"{label + ': ' + each['name']:<44.44}"[:44] + f"{each['wall_s']:8.1f}{ratio:8.2f}{cells}")
    for run in measured["runs"]:
        print(f"\nRequests at -parallelism={run['parallelism']}, as the fronts saw them")
        for each in run["phases"]:
            for kind in each["requests"]:
                print(
                    f"  {each['name']:20} {kind['kind']:36}{kind['count']:7}"
                    f"  mean {kind['mean_ms']:8.1f} ms  p99 {kind['p99_ms']:8.1f} ms  errors {kind['errors']}"
                )


def print_batches(measured: dict[str, Any]) -> None:
    print(
        f"\n{measured['microvms']} microVMs by POST /api/v2/apply: declared in {measured['declared_s']} s, "
        f"ready in {measured['ready_s']} s, destroyed in {measured['destroyed_s']} s"
    )
    print(f"{'':12}{'CPU s':>8}{'RSS MB':>10}{'PSS MB':>10}{'RSS empty':>11}{'idle %':>8}{'idle % empty':>14}")
    for name, held in sorted(measured["memory"].items()):
        print(
            f"{name:12}{measured['cpu_s'][name]:8.1f}{held['rss_mb']:10.1f}{held['pss_mb']:10.1f}"
            f"{measured['memory_empty'][name]['rss_mb']:11.1f}{measured['idle_cpu_percent'][name]:8.1f}"
            f"{measured['idle_cpu_percent_empty'][name]:14.1f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="100 microVMs on 4 hosts, 500 by batch")
    parser.add_argument("--only", choices=("terraform", "batch"), help="one of the two parts")
    parser.add_argument("--parallelism", type=int, action="append", help="instead of 10 and 64; repeatable")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure there, too")
    parser.add_argument("--terraform", type=int, metavar="N", help="microVMs through Terraform, instead of 1,000")
    parser.add_argument("--batch", type=int, metavar="N", help="microVMs in batches, instead of 10,000")
    options = parser.parse_args()
    size = SHORT if options.short else FULL
    size.terraform = options.terraform or size.terraform
    size.batch = options.batch or size.batch
    size.parallelisms = tuple(options.parallelism or size.parallelisms)
    # An end by SIGTERM has to clean up as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    measured: dict[str, Any] = {"hosts": size.hosts, "cpus": os.cpu_count(), "load_before": os.getloadavg()[0]}
    with TemporaryDirectory(prefix="bench-") as name, running_world(Path(name) / "c", hosts=size.hosts) as world:
        if options.only != "batch":
            measured["terraform"] = through_terraform(world, size, Path(name))
        if options.only != "terraform":
            print(f"{size.batch} microVMs in batches of {BATCH}", flush=True)
            measured["batch"] = by_batches(world, size)
        ended = subprocess.Popen.poll(world.agents)
        assert ended is None, f"the agents ended with {ended}"
    measured["load_after"] = os.getloadavg()[0]
    if "terraform" in measured:
        print_terraform(measured["terraform"])
    if "batch" in measured:
        print_batches(measured["batch"])
    print(f"\nLoad average before {measured['load_before']:.1f}, after {measured['load_after']:.1f}")
    if options.json:
        options.json.write_text(json.dumps(measured, indent=1) + "\n")


if __name__ == "__main__":
    main()
