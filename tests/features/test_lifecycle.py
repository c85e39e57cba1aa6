"""Steps of lifecycle.feature."""

from __future__ import annotations

from collections import Counter

from features.conftest import Fleet
from pytest_bdd import parsers, scenarios, then, when
from support.cluster import within

scenarios("lifecycle.feature")


@then("the microVMs are spread over 3 hosts")
def _spread(fleet: Fleet) -> None:
    hosts = Counter(fleet.host_of(name) for name in fleet.microvms)
    assert set(hosts) == {"h1", "h2", "h3"}, hosts


@when(parsers.parse('memory_in_mb of microVM "{name}" is changed to {size:d} and applied'))
def _resize(fleet: Fleet, name: str, size: int) -> None:
    fleet.microvms[name]["memory_in_mb"] = str(size)
    fleet.apply()


@then("terraform changed 1 resource and added none")
def _changed(fleet: Fleet) -> None:
    assert fleet.last is not None
    assert "0 added, 1 changed, 0 destroyed" in fleet.last.plain, fleet.last.output


@then(parsers.parse('microVM "{name}" runs with {size:d} MB within {seconds:d} seconds'))
def _runs_with(fleet: Fleet, name: str, size: int, seconds: int) -> None:
    host = fleet.host_of(name)

    def resized() -> bool:
        status = fleet.get(name)["status"]
        return status["observed_generation"] == 2 and status["drift"]["class"] == "in_sync" and status["ready"]

    within(seconds, resized, f"{name} runs with {size} MB")
    assert fleet.get(name)["spec"]["memory_in_mb"] == size
    assert f"and {size} MB" in fleet.client.get(f"/namespaces/fleet/microvms/{name}/console").text
    assert fleet.host_of(name) == host


@then("it is still the same microVM")
def _same(fleet: Fleet) -> None:
    for name in fleet.microvms:
        assert fleet.get(name)["uid"] == fleet.before[name]["uid"]


@when(parsers.parse('root_volume of microVM "{name}" is changed and applied'))
def _replace(fleet: Fleet, name: str) -> None:
    fleet.microvms[name]["root_volume"] = '{ container_source = "demo/root:2" }'
    fleet.write()
    planned = fleet.terraform.plan()
    assert "must be replaced" in planned.plain, planned.output
    fleet.apply()


@then(parsers.parse('microVM "{name}" is another one than before'))
def _another(fleet: Fleet, name: str) -> None:
    assert fleet.get(name)["uid"] != fleet.before[name]["uid"]
    everywhere = [line for host in ("h1", "h2", "h3") for line in fleet.tamper("list", host=host).splitlines()]
    assert sum(f"fleet/{name}\t" in line for line in everywhere) == 1, everywhere


@when(parsers.parse('microVM "{name}" is forgotten by terraform and imported again'))
def _import(fleet: Fleet, name: str) -> None:
    address = f"flintlock_microvm.{name}"
    before = fleet.terraform.resources()[address]
    fleet.terraform.run("state", "rm", address)
    fleet.terraform.import_(address, f"fleet/{name}")
    after = fleet.terraform.resources()[address]
    assert after["uid"] == before["uid"]
    # wait_for is how Terraform waits, not something that the control plane knows.
    different = {key for key in before if before[key] != after[key]}
    assert different <= {"wait_for", "timeouts"}, different
    fleet.apply()


@then("the namespace is gone")
def _gone(fleet: Fleet) -> None:
    assert fleet.client.find("/namespaces/fleet") is None
