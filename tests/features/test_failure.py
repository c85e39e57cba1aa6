"""Steps of failure.feature."""

from __future__ import annotations

import json
import subprocess

from features.conftest import Fleet, listed, starts_of
from pytest_bdd import parsers, scenarios, then, when
from support.cluster import leader_of, within

scenarios("failure.feature")


@when("terraform applies and the leader is killed in the middle")
def _kill_leader(fleet: Fleet) -> None:
    leader = leader_of(fleet.cluster, fleet.client)
    applying = fleet.terraform.start("apply", "-no-color", "-input=false", "-auto-approve")
    try:
        within(60, lambda: 1 <= len(fleet.items("/microvms")) < len(fleet.microvms), "the apply is in the middle")
        fleet.cluster.kill_member(leader)
        output, _ = applying.communicate(timeout=120)
    except (AssertionError, subprocess.TimeoutExpired):
        applying.kill()
        raise
    fleet.before["apply"] = (applying.returncode, output)


@then("the apply succeeds")
def _succeeds(fleet: Fleet) -> None:
    code, output = fleet.before["apply"]
    assert code == 0, output


@then(parsers.parse("exactly {count:d} microVMs exist, on the hosts as in the state, within {seconds:d} seconds"))
def _exactly(fleet: Fleet, count: int, seconds: int) -> None:
    def same() -> bool:
        declared = sorted(f"{item['name']}@{item['status']['host']}" for item in fleet.items("/microvms"))
        found = sorted(
            f"{line.split(chr(9))[1].removeprefix('fleet/')}@{host}"
            for host in ("h1", "h2", "h3")
            for line in listed(fleet, host)
        )
        return declared == found and len(found) == count

    within(seconds, same, f"exactly {count} microVMs exist")


@when(parsers.parse('the agent of the host of "{name}" is killed and started again'))
def _restart_agent(fleet: Fleet, name: str) -> None:
    fleet.before["subject"] = (name, fleet.host_of(name), starts_of(fleet, name))
    fleet.cluster.kill_member(fleet.host_of(name))
    fleet.cluster.start()


@when(parsers.parse('the agent of the host of "{name}" is killed'))
def _kill_agent(fleet: Fleet, name: str) -> None:
    fleet.before["subject"] = (name, fleet.host_of(name), starts_of(fleet, name))
    fleet.cluster.kill_member(fleet.host_of(name))


@when("that agent is started again")
def _start_agent(fleet: Fleet) -> None:
    fleet.cluster.start()


@then("it was not restarted")
def _not_restarted(fleet: Fleet) -> None:
    name, host, starts = fleet.before["subject"]
    assert fleet.host_of(name) == host
    assert starts_of(fleet, name) == starts


@then(parsers.parse("the host is {phase} within {seconds:d} seconds"))
def _in_phase(fleet: Fleet, phase: str, seconds: int) -> None:
    _, host, _ = fleet.before["subject"]
    within(
        seconds,
        lambda: fleet.client.get(f"/hosts/{host}").body["status"]["phase"] == phase,
        f"{host} is {phase}",
    )


@then(parsers.parse('microVM "{name}" is of drift class unreachable'))
def _class_unreachable(fleet: Fleet, name: str) -> None:
    assert fleet.get(name)["status"]["drift"]["class"] == "unreachable"


@then("the follower answers lists, why, drift, console and a watch")
def _follower_answers(fleet: Fleet) -> None:
    body = fleet.client.get("/cluster").body
    assert body["node"] == fleet.before["follower"]
    assert body["log"]["role"] == "follower"
    assert len(fleet.items("/namespaces/fleet/microvms")) == 3
    assert len(fleet.items("/hosts")) == 3
    why = fleet.client.get("/namespaces/fleet/microvms/vm-0/why").body
    assert {bid["host"] for bid in why["decision"]["bids"]} == {"h1", "h2", "h3"}
    drift = fleet.client.get("/drift").body
    assert drift["summary"]["in_sync"] == 3
    # Whatever node their agents dialled.
    for name in fleet.microvms:
        assert starts_of(fleet, name) == 1
    before = drift["revision"]
    fleet.client.request("POST", "/namespaces/fleet/microvms/vm-0/actions/pause")
    for event in fleet.client.events("/watch", {"from": before}):
        data = json.loads(event.data)
        if data["kind"] == "MicroVM" and data["object"]["spec"]["power_state"] == "paused":
            assert data["object"]["name"] == "vm-0"
            break
