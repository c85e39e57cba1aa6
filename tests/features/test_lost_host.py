"""Steps of lost_host.feature."""

from __future__ import annotations

import json
import os
import signal

from features.conftest import Fleet, listed, microvm_fields, starts_of
from pytest_bdd import given, parsers, scenarios, then, when
from support.cluster import leader_of, within
from support.copies import running

from controlplane.cli.dev import processes

scenarios("lost_host.feature")

PET = "pet"


# -- Given -------------------------------------------------------------------------------------------------------------


@given(parsers.parse('terraform has applied {count:d} microVMs that restart elsewhere, and one "pet" that never moves'))
def _applied(fleet: Fleet, count: int) -> None:
    fleet.microvms = {f"vm-{number}": microvm_fields() for number in range(count)}
    for fields in fleet.microvms.values():
        fields["recovery"] = '{ on_host_failure = "restart_elsewhere" }'
    fleet.microvms[PET] = microvm_fields()
    fleet.apply()
    fleet.before["homes"] = {name: fleet.host_of(name) for name in fleet.microvms}


@given(
    parsers.parse(
        'a failover policy "{name}" that waits for {seconds:d} seconds, and that every microVM which moves names'
    )
)
def _patient(fleet: Fleet, name: str, seconds: int) -> None:
    fleet.failover_policies[name] = {"restart": '"delayed"', "delay_s": str(seconds)}
    for each in fleet.microvms.values():
        if "recovery" in each:
            policy = f"flintlock_failover_policy.{name}.name"
            each["recovery"] = f'{{ on_host_failure = "restart_elsewhere", policy = {policy} }}'
    fleet.apply()


# -- When --------------------------------------------------------------------------------------------------------------


@when(parsers.parse('the agent of the host of "{name}" is killed'))
def _kill_agent(fleet: Fleet, name: str) -> None:
    _remember(fleet, name)
    fleet.cluster.kill_member(fleet.before["host"])


@when(parsers.parse('the agent of the host of "{name}" and the leader are killed at once'))
def _kill_both(fleet: Fleet, name: str) -> None:
    _remember(fleet, name)
    leader = leader_of(fleet.cluster, fleet.client)
    fleet.cluster.kill_member(fleet.before["host"])
    fleet.cluster.kill_member(leader)


@when(parsers.parse('the agent of the host of "{name}" is frozen'))
def _freeze(fleet: Fleet, name: str) -> None:
    _remember(fleet, name)
    for process in _agent(fleet):
        os.kill(process, signal.SIGSTOP)


@when("that agent is thawed")
def _thaw(fleet: Fleet) -> None:
    for process in _agent(fleet):
        os.kill(process, signal.SIGCONT)


@when("that agent is started again")
def _start_agent(fleet: Fleet) -> None:
    fleet.cluster.start()


@when(parsers.parse("the agents of {count:d} hosts are killed"))
def _kill_agents(fleet: Fleet, count: int) -> None:
    fleet.before["lost"] = [host.name for host in fleet.cluster.layout.plan.hosts][:count]
    for host in fleet.before["lost"]:
        fleet.cluster.kill_member(host)


@when("the operator confirms that they are off")
def _confirm(fleet: Fleet) -> None:
    code, output = fleet.flintctl("host", "confirm-fenced", *fleet.before["lost"], "--yes")
    assert code == 0, output


# -- Then --------------------------------------------------------------------------------------------------------------


@then(parsers.parse("the host is {phase} within {seconds:d} seconds"))
def _host_is(fleet: Fleet, phase: str, seconds: int) -> None:
    _await_phase(fleet, fleet.before["host"], phase, seconds)


@then(parsers.parse("both hosts are fenced within {seconds:d} seconds"))
def _both_fenced(fleet: Fleet, seconds: int) -> None:
    for host in fleet.before["lost"]:
        _await_phase(fleet, host, "fenced", seconds)


@then(parsers.parse('microVM "{name}" is ready on another host within {seconds:d} seconds'))
def _moved(fleet: Fleet, name: str, seconds: int) -> None:
    def moved() -> bool:
        status = fleet.get(name)["status"]
        return status["ready"] and status["host"] not in (None, fleet.before["host"])

    within(seconds, moved, f"{name} runs elsewhere")


@then(parsers.parse('flintctl says why "{name}" was moved'))
def _why(fleet: Fleet, name: str) -> None:
    code, output = fleet.flintctl("microvm", "why", f"fleet/{name}")
    assert code == 0, output
    assert f"was given up on host {fleet.before['host']}" in " ".join(output.split()), output


@then(parsers.parse('it has no copy of "{name}" within {seconds:d} seconds'))
def _clean(fleet: Fleet, name: str, seconds: int) -> None:
    host = fleet.before["host"]
    within(seconds, lambda: not any(f"fleet/{name}\t" in line for line in listed(fleet, host)), f"{host} is clean")


@then(parsers.parse('"{name}" still runs there, and flintctl says that its policy keeps it there'))
def _stays(fleet: Fleet, name: str) -> None:
    host = fleet.before["host"]
    assert fleet.host_of(name) == host
    assert running(fleet.cluster)[name] == [host]
    code, output = fleet.flintctl("microvm", "why", f"fleet/{name}")
    assert code == 0, output
    assert "on_host_failure is never" in " ".join(output.split()), output


@then(parsers.parse('flintctl says that "{name}" waits for its host by the policy "{policy}"'))
def _waits_by_policy(fleet: Fleet, name: str, policy: str) -> None:
    code, output = fleet.flintctl("microvm", "why", f"fleet/{name}")
    assert code == 0, output
    assert f"failover policy {policy} waits 300 s from when host {fleet.before['host']} was fenced" in " ".join(
        output.split()
    ), output


@then("it is where it was")
def _where_it_was(fleet: Fleet) -> None:
    assert fleet.host_of(fleet.before["name"]) == fleet.before["host"]


@then("it was not restarted")
def _not_restarted(fleet: Fleet) -> None:
    assert starts_of(fleet, fleet.before["name"]) == fleet.before["starts"]


@then("flintctl says that the breaker is open")
def _breaker(fleet: Fleet) -> None:
    code, output = fleet.flintctl("cluster", "status")
    assert code == 0, output
    assert "2 of 3 hosts are lost" in " ".join(output.split()), output


@then("nothing was moved")
def _nothing_moved(fleet: Fleet) -> None:
    homes = {name: fleet.get(name)["status"]["host"] for name in fleet.microvms}
    assert homes == fleet.before["homes"]


@then(parsers.parse("every microVM that may move is ready on the last host within {seconds:d} seconds"))
def _all_moved(fleet: Fleet, seconds: int) -> None:
    (last,) = {host.name for host in fleet.cluster.layout.plan.hosts} - set(fleet.before["lost"])

    def moved() -> bool:
        each = [fleet.get(name)["status"] for name in fleet.microvms if name != PET]
        return all(status["ready"] and status["host"] == last for status in each)

    within(seconds, moved, f"everything runs on {last}")


@then("flintctl shows what the host will do when it comes back")
def _preview(fleet: Fleet) -> None:
    host = fleet.before["host"]
    code, output = fleet.flintctl("host", "rejoin", host, "--dry-run", "-o", "json")
    assert code == 0, output
    made = json.loads(output)
    assert made["source"] == "forecast"
    here = {name for name in fleet.microvms if fleet.host_of(name) == host}
    assert {item["name"] for item in made["items"] if item["name"]} == here
    destroyed = {item["uid"] for item in made["items"] if item["verb"] == "destroy"}
    assert fleet.get(fleet.before["name"])["uid"] in destroyed
    fleet.before["shown"] = {item["uid"]: item["verb"] for item in made["items"]}


@then("what was shown is what happened")
def _as_shown(fleet: Fleet) -> None:
    host, shown = fleet.before["host"], fleet.before["shown"]
    there = {line.split("\t")[0] for line in listed(fleet, host)}
    assert {uid for uid, verb in shown.items() if verb != "destroy"} == there
    code, output = fleet.flintctl("host", "rejoin", host, "-o", "json")
    assert code == 0, output
    made = json.loads(output)
    assert (made["source"], {item["verb"] for item in made["items"]} <= {"keep"}) == ("agent", True)


def _remember(fleet: Fleet, name: str) -> None:
    fleet.before |= {"name": name, "host": fleet.host_of(name), "starts": starts_of(fleet, name)}


def _agent(fleet: Fleet) -> list[int]:
    parent = processes.recorded(fleet.cluster.layout.run_file(fleet.before["host"]))
    assert parent is not None
    return [each.pid for each in processes.session_of(parent)]


def _await_phase(fleet: Fleet, host: str, phase: str, seconds: int) -> None:
    within(seconds, lambda: fleet.client.get(f"/hosts/{host}").body["status"]["phase"] == phase, f"{host} is {phase}")
