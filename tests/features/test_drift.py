"""Steps of drift.feature."""

from __future__ import annotations

import json

from features.conftest import Fleet, starts_of
from pytest_bdd import parsers, scenarios, then, when
from support.cluster import within

scenarios("drift.feature")


@when(parsers.parse('microVM "{name}" is killed behind our back'))
def _kill(fleet: Fleet, name: str) -> None:
    fleet.tamper("kill", f"fleet/{name}", host=fleet.host_of(name))


@when(parsers.parse('microVM "{name}" is paused behind our back'))
def _pause(fleet: Fleet, name: str) -> None:
    fleet.tamper("pause", f"fleet/{name}", host=fleet.host_of(name))


@then(parsers.parse('microVM "{name}" is ready again within {seconds:d} seconds, started anew'))
def _again(fleet: Fleet, name: str, seconds: int) -> None:
    within(seconds, lambda: starts_of(fleet, name) == 2, f"{name} is started anew")
    within(seconds, lambda: fleet.get(name)["status"]["ready"], f"{name} is ready")


@then(parsers.parse('flintctl drift names {pointer} of "{name}" within {seconds:d} seconds and exits with 2'))
def _named(fleet: Fleet, pointer: str, name: str, seconds: int) -> None:
    def named() -> bool:
        code, output = fleet.flintctl("drift", "--detailed-exitcode")
        return code == 2 and any(name in line and pointer in line for line in output.splitlines())

    within(seconds, named, f"flintctl drift names {pointer} of {name}")
    assert starts_of(fleet, name) == 1


@then("a plan exits with 2 and shows power_state")
def _shown(fleet: Fleet) -> None:
    planned = fleet.terraform.plan()
    assert planned.exit_code == 2, planned.output
    assert 'power_state = "stopped" -> "running"' in planned.plain, planned.output


@when(parsers.parse('a microVM "{name}" appears on host "{host}" that nobody declared'))
def _stray(fleet: Fleet, name: str, host: str) -> None:
    fleet.tamper("create", name, host=host)
    fleet.before["stray"] = (name, host)


@then(parsers.parse("flintctl drift shows it as unmanaged within {seconds:d} seconds"))
def _unmanaged(fleet: Fleet, seconds: int) -> None:
    name, host = fleet.before["stray"]

    def shown() -> bool:
        code, output = fleet.flintctl("drift", "-o", "json")
        assert code == 0, output
        items = json.loads(output)["items"]
        return any(item["class"] == "unmanaged" and item["host"] == host and item["name"] == name for item in items)

    within(seconds, shown, "flintctl drift shows the stray microVM")


@then("it is still there after the host's next two looks")
def _left_alone(fleet: Fleet) -> None:
    name, host = fleet.before["stray"]
    agent_log = fleet.cluster.layout.log(host).stat().st_size
    # The host looks again for each of these, and acts on what it sees.
    for other in ("vm-0", "vm-1"):
        fleet.client.request("POST", f"/namespaces/fleet/microvms/{other}/actions/restart")
        within(15, lambda other=other: starts_of(fleet, other) == 2, f"{other} restarts")
    assert fleet.cluster.layout.log(host).stat().st_size >= agent_log
    assert any(name in line for line in fleet.tamper("list", host=host).splitlines())
    fleet.tamper("remove", f"unmanaged-{name}", host=host)
