"""Steps of hosts.feature."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from features.conftest import Fleet, listed, microvm_fields
from pytest_bdd import given, parsers, scenarios, then, when
from support.cluster import leader_of, within
from support.copies import running

scenarios("hosts.feature")

PET = "pet"


@pytest.fixture(autouse=True)
def healed(fleet: Fleet) -> Iterator[None]:
    """What a scenario makes slow is not slow afterwards."""
    yield
    if "slow" in fleet.before:
        fleet.tamper("heal", host=fleet.before["slow"])


def evacuation(fleet: Fleet) -> dict[str, Any]:
    return fleet.client.get(f"/hosts/{fleet.before['host']}/evacuation").body


# -- Given -------------------------------------------------------------------------------------------------------------


@given(parsers.parse('terraform has applied {count:d} microVMs, and one "pet" that is pinned to the host of "{name}"'))
def _applied_with_pet(fleet: Fleet, count: int, name: str) -> None:
    fleet.microvms = {f"vm-{number}": microvm_fields() for number in range(count)}
    fleet.apply()
    fleet.microvms[PET] = {**microvm_fields(), "placement": f'{{ host = "{fleet.host_of(name)}" }}'}
    fleet.apply()


@given(parsers.parse('the host of "{name}" is slow to end it'))
def _slow(fleet: Fleet, name: str) -> None:
    host = fleet.before["slow"] = fleet.before["host"] = fleet.host_of(name)
    options = ("--call", "destroy", "--message", "it takes its time", "--times", "6")
    fleet.tamper("fail", fleet.get(name)["uid"], *options, host=host)
    fleet.before["slow_one"] = name


# -- When --------------------------------------------------------------------------------------------------------------


@when(parsers.parse('an operator drains the host of "{name}"'))
def _drain(fleet: Fleet, name: str) -> None:
    fleet.before["host"] = fleet.host_of(name)
    fleet.before["said"] = fleet.flintctl("host", "drain", fleet.before["host"], "--timeout", "40")


@when("an operator puts that host into maintenance")
def _maintain(fleet: Fleet) -> None:
    fleet.before["said"] = fleet.flintctl("host", "maintenance", fleet.before["host"], "--timeout", "30")


@when("the operator uncordons it")
def _uncordon(fleet: Fleet) -> None:
    code, output = fleet.flintctl("host", "uncordon", fleet.before["host"])
    assert code == 0, output


@when("an operator drains that host and the leader is killed in the middle of it")
def _drain_and_kill(fleet: Fleet) -> None:
    fleet.before["epochs"] = {name: fleet.get(name)["status"]["epoch"] for name in fleet.microvms}
    code, output = fleet.flintctl("host", "drain", fleet.before["host"], "--max-parallel", "2", "--no-wait")
    assert code == 0, output
    slow = fleet.before["slow_one"]
    within(20, lambda: fleet.get(slow)["status"]["phase"] == "moving", f"{slow} is told to move")
    leader = leader_of(fleet.cluster, fleet.client)
    fleet.cluster.kill_member(leader)
    assert fleet.get(slow)["status"]["phase"] == "moving", "the leader was killed in the middle"


# -- Then --------------------------------------------------------------------------------------------------------------


@then("flintctl says that it is drained, and since when")
def _drained(fleet: Fleet) -> None:
    code, output = fleet.before["said"]
    assert code == 0, output
    assert f"host {fleet.before['host']}: drained since 20" in output


@then(parsers.parse('flintctl says that it is not drained, because of "{name}"'))
def _not_drained(fleet: Fleet, name: str) -> None:
    code, output = fleet.before["said"]
    host = fleet.before["host"]
    assert code == 1, output
    assert f"host {host} is not drained: 1 microVMs stay there" in output
    assert f"fleet/{name}" in output
    assert f"its placement.host asks for host {host} alone" in output
    assert evacuation(fleet)["evacuation"]["done_at"] is None


@then("flintctl says that it is in maintenance")
def _maintained(fleet: Fleet) -> None:
    code, output = fleet.before["said"]
    assert code == 0, output
    assert "in maintenance since 20" in output


@then(parsers.parse("the host is drained within {seconds:d} seconds"))
def _drained_within(fleet: Fleet, seconds: int) -> None:
    within(seconds, lambda: evacuation(fleet)["evacuation"]["done_at"] is not None, "it is drained")
    assert listed(fleet, fleet.before["host"]) == []


@then("nothing is left on that host")
def _empty(fleet: Fleet) -> None:
    assert listed(fleet, fleet.before["host"]) == []


@then(parsers.parse('"{name}" still runs there'))
def _runs(fleet: Fleet, name: str) -> None:
    assert running(fleet.cluster)[name] == [fleet.before["host"]]


@then("nothing runs on that host")
def _nothing_runs(fleet: Fleet) -> None:
    assert all(fleet.before["host"] not in hosts for hosts in running(fleet.cluster).values())


@then(parsers.parse("that host is ready for re-provisioning within {seconds:d} seconds"))
def _reprovisionable(fleet: Fleet, seconds: int) -> None:
    path = f"/hosts/{fleet.before['host']}"
    within(
        seconds,
        lambda: fleet.client.get(path).body["status"]["ready_for_reprovisioning"],
        f"{path} is ready for re-provisioning",
    )


@then("each of them was moved at most once")
def _once(fleet: Fleet) -> None:
    for name, before in fleet.before["epochs"].items():
        assert fleet.get(name)["status"]["epoch"] <= before + 1, name
