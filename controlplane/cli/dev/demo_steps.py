"""The steps of `flintctl dev demo`. Each one does something, checks that it had the promised effect, and says so.

A step gets the World, and gives a short outcome for the table; anything that is not as promised raises CliError.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.cli.dev import leftovers
from controlplane.cli.dev.world import NAMESPACE, World, expect, taps_possible
from controlplane.cli.values import Json, dig, objects, text

COUNT = 6
REPORTED = "web-b"
"""Its drift is reported and left alone."""
REPAIRED = "web-c"
"""Heals by itself."""
ADDED = "web-g"
NOTICE_S = 30.0
"""Deadline for the control plane to see what happened on a host."""
HEAL_S = 120.0
FAILOVER_S = 30.0
GONE_S = 20.0


@dataclass(frozen=True, slots=True)
class Step:
    title: str
    run: Callable[[World], str]


def _microvms(*, added: bool = False) -> str:
    """The variable `microvms` of the quickstart, as JSON."""
    names = "abcdefg" if added else "abcdef"
    declared: dict[str, Json] = {name: {} for name in names}
    declared["b"] = {"drift_policy": "report"}
    if taps_possible():
        declared["a"] = {"interface": True}
    return json.dumps(declared)


def _variables(*, added: bool = False) -> list[str]:
    return [f"-var=microvms={_microvms(added=added)}"]


def init(world: World) -> str:
    world.terraform.run("init", "-no-color")
    world.terraform.run("validate", "-no-color")
    return f"Terraform {world.terraform.version()} from {world.terraform_source}"


def apply(world: World) -> str:
    world.terraform.apply(*_variables(), watch=world.progress.moving)
    microvms = world.microvms()
    expect(len(microvms) == COUNT, f"{len(microvms)} microVMs are declared instead of {COUNT}")
    for microvm in microvms:
        expect(dig(microvm, "status", "ready") is True, f"{microvm['name']} is not ready after apply")
        expect(world.runs(microvm), f"{microvm['name']} does not run on its host")
    spread = Counter(text(dig(microvm, "status", "host")) for microvm in microvms)
    hosts = [host.name for host in world.cluster.layout.plan.hosts]
    expect(set(spread) == set(hosts) and set(spread.values()) == {2}, f"not two microVMs on each host: {dict(spread)}")
    simulated = sum(dig(microvm, "status", "simulated") is True for microvm in microvms)
    expect(simulated == (0 if world.real else COUNT), f"{simulated} microVMs say that they are simulated")
    if world.real and taps_possible():
        world.taps |= leftovers.vm_taps(world.cluster.layout)
        expect(world.taps, "no microVM has a tap device, although one asked for an interface")
    where = ", ".join(f"{host}: {count}" for host, count in sorted(spread.items()))
    accelerator = text(dig(microvms[0], "status", "details", "accelerator"))
    return f"{COUNT} microVMs ready ({where})" + (f", {accelerator}" if accelerator else "")


def consoles(world: World) -> str:
    for microvm in world.microvms():
        shown = world.flintctl("vm", "console", f"{NAMESPACE}/{microvm['name']}", "--offset=-4096")
        lines = [line.strip() for line in shown.splitlines() if line.strip()]
        expect(lines, f"{microvm['name']} has printed nothing")
        if world.real:
            expect("flintlock: ready" in lines, f"{microvm['name']} did not say that it is ready:\n{shown}")
        greeting = next((line for line in lines if line.startswith("hello")), lines[-1])
        world.progress.say(f"    {microvm['name']} on {dig(microvm, 'status', 'host')} | {greeting[:100]}")
    return "every guest speaks"


def plan_is_empty(world: World) -> str:
    for extra in ((), ("-refresh=false",)):
        plan = world.terraform.plan_exit_code(*_variables(), *extra)
        expect(plan.exit_code == 0, f"terraform plan {' '.join(extra)} after apply is not empty:\n{plan.output}")
    world.flintctl("drift", "--detailed-exitcode", expect_code=0)
    return "with and without refresh; flintctl drift: nothing"


def reported_drift(world: World) -> str:
    killed = world.kill_guest(REPORTED)
    world.progress.say(f"    killed {killed} of {REPORTED} (drift_policy = report)")

    def drifted() -> Json | None:
        microvm = world.microvm(REPORTED)
        return microvm if dig(microvm, "status", "drift", "class") == "drifted" else None

    seen = world.await_(drifted, f"{REPORTED} is seen to have drifted", timeout_s=NOTICE_S)
    field = (objects(seen, "status", "drift", "fields") or [{}])[0]
    expect(field.get("pointer") == "/spec/power_state", f"the drifted field is {field.get('pointer')}")
    shown = world.flintctl("drift", "--detailed-exitcode", expect_code=2)
    expect(
        "/spec/power_state" in shown and f"{NAMESPACE}/{REPORTED}" in shown,
        f"flintctl drift does not name the field:\n{shown}",
    )
    world.progress.say("".join(f"    {line}\n" for line in shown.splitlines()[:2]).rstrip())
    plan = world.terraform.plan_exit_code(*_variables())
    expect(plan.exit_code == 2, "terraform plan -detailed-exitcode did not answer 2")
    expect(
        'flintlock_microvm.web["b"]' in plan.output and "power_state" in plan.output,
        f"the plan does not show the drifted field:\n{plan.output}",
    )
    expect(
        not world.runs(world.microvm(REPORTED)), f"{REPORTED} was started again, although its drift is only reported"
    )
    return f"plan: 2, flintctl drift: 2, /spec/power_state, {text(field.get('cause')) or 'stopped'}"


def apply_repairs(world: World) -> str:
    world.terraform.apply(*_variables(), watch=world.progress.moving)
    world.await_healthy(REPORTED, timeout_s=HEAL_S)
    plan = world.terraform.plan_exit_code(*_variables())
    expect(plan.exit_code == 0, f"the plan after the repair is not empty:\n{plan.output}")
    return f"{REPORTED} runs again, the plan is empty"


def heals_alone(world: World) -> str:
    before = world.microvm(REPAIRED)
    killed = world.kill_guest(REPAIRED)
    world.progress.say(f"    killed {killed} of {REPAIRED} (drift_policy = repair)")
    started = time.monotonic()
    after = world.await_healthy(REPAIRED, timeout_s=HEAL_S)
    expect(dig(after, "status", "host") == dig(before, "status", "host"), f"{REPAIRED} is on another host now")
    return f"{REPAIRED} ready again after {time.monotonic() - started:.1f} s, nobody asked"


def leader_killed(world: World) -> str:
    old = text(dig(world.cluster.status(), "log", "leader"))
    expect(old, "the cluster has no leader to kill")
    world.cluster.kill_member(old)
    killed_at = time.monotonic()
    world.progress.say(f"    kill -9 of every process of {old}, the Raft leader")

    def elected() -> str | None:
        survivors = [node.name for node in world.cluster.layout.plan.nodes if node.name != old]
        view = world.cluster.status(survivors)
        leader = text(dig(view, "log", "leader"))
        return leader if leader not in ("", old) and dig(view, "log", "has_quorum") else None

    new = world.await_(elected, "another leader", timeout_s=FAILOVER_S)
    failover_s = time.monotonic() - killed_at
    world.terraform.apply(*_variables(added=True), watch=world.progress.moving)
    microvm = world.microvm(ADDED)
    expect(
        dig(microvm, "status", "ready") is True and world.runs(microvm), f"{ADDED} does not run after the second apply"
    )
    expect(len(world.microvms()) == COUNT + 1, "a microVM was lost or doubled")
    return f"{old} -> {new} in {failover_s:.1f} s; apply added {ADDED} without {old}"


def node_returns(world: World) -> str:
    started = world.cluster.start()
    world.cluster.await_ready()
    return f"{', '.join(started)} is back"


def destroy(world: World) -> str:
    world.terraform.destroy(*_variables(added=True), watch=world.progress.moving)
    expect(not world.microvms(), "the API still lists microVMs")
    declared = [host for host in objects(world.client.get("/hosts").body, "items") if host.get("declared") is not False]
    expect(not declared, f"hosts are still declared: {', '.join(text(host.get('name')) for host in declared)}")
    expect(world.client.find(f"/namespaces/{NAMESPACE}") is None, "the namespace is still there")

    def nothing() -> bool | None:
        return None if leftovers.find(world.cluster.layout, taps=world.taps) else True

    try:
        world.await_(nothing, "nothing is left on the hosts", timeout_s=GONE_S)
    finally:
        left = leftovers.find(world.cluster.layout, taps=world.taps)
        expect(not left, "something is left:\n" + "\n".join(f"  {line}" for line in left))
    return "no microVM process, no tap, no file" if world.real else "no simulated microVM, no process, no tap, no file"


STEPS = (
    Step("terraform init", init),
    Step("terraform apply", apply),
    Step("consoles", consoles),
    Step("plan is empty", plan_is_empty),
    Step("drift is reported", reported_drift),
    Step("apply repairs it", apply_repairs),
    Step("drift is repaired alone", heals_alone),
    Step("leader killed, apply again", leader_killed),
    Step("the node returns", node_returns),
    Step("terraform destroy", destroy),
)
