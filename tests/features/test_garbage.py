"""Steps of garbage.feature."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from features.conftest import Fleet, listed
from pytest_bdd import given, parsers, scenarios, then, when
from support.cluster import within

from controlplane.cli.errors import ProblemError
from controlplane.drivers.simulated.store import Row, Store
from controlplane.model.resources import ObservedPower
from controlplane.model.spec import Kernel, MicroVMSpec
from controlplane.ports import VMDefinition

scenarios("garbage.feature")

HOSTS = ("h1", "h2", "h3")
COPY, STRANGER = "01COPYTHATNOBODYDECLARES00", "9"
NAMESPACE = {"spec": {}}
SPEC = {"spec": {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}}


@pytest.fixture
def broken(fleet: Fleet) -> Iterator[None]:
    """No host can create anything, and trying again changes nothing."""
    for host in HOSTS:
        options = ("--call", "create", "--code", "ImageNotFound", "--message", "it is broken", "--permanent")
        fleet.tamper("fail", "*", *options, host=host)
    yield
    for host in HOSTS:
        fleet.tamper("heal", host=host)


@pytest.fixture
def stranger(fleet: Fleet) -> Iterator[None]:
    """What only its owner may end is ended by the test."""
    yield
    store = Store(fleet.state_dir("h1"))
    store.delete(STRANGER)
    store.close()


def admit(fleet: Fleet, *hosts: str) -> None:
    for host in hosts:
        fleet.client.request("PUT", f"/hosts/{host}", body={"spec": {}})


def waits(fleet: Fleet) -> dict[str, str]:
    """Name to what it waits for, of what flintctl says is not collected yet."""
    code, output = fleet.flintctl("gc", "plan", "-o", "json")
    assert code == 0, output
    waiting: list[dict[str, Any]] = json.loads(output)["waiting"]
    return {each["subject"]["name"]: each["waits_for"] for each in waiting}


def counted(fleet: Fleet) -> dict[str, int]:
    """How much was collected so far, by trigger."""
    triggers = json.loads(fleet.flintctl("gc", "status", "-o", "json")[1])["triggers"]
    return {each["trigger"]: each["collected"] for each in triggers}


# -- failed microVMs ---------------------------------------------------------------------------------------------------


@given(parsers.parse('microVMs "{one}" and "{other}" that no host can run'))
def _failed(fleet: Fleet, broken: None, one: str, other: str) -> None:
    admit(fleet, *HOSTS)
    fleet.client.request("PUT", "/namespaces/fleet", body=NAMESPACE)
    for name in (other, one):
        fleet.client.request("PUT", f"/namespaces/fleet/microvms/{name}", body=SPEC)
    for name in (other, one):
        within(10, lambda name=name: fleet.get(name)["status"]["phase"] == "failed", f"{name} failed")


@when(parsers.parse('the operator holds "{name}" because "{reason}"'))
def _hold(fleet: Fleet, name: str, reason: str) -> None:
    code, output = fleet.flintctl("hold", f"microvm/fleet/{name}", "--reason", reason)
    assert code == 0, output


@when(parsers.parse('the operator releases "{name}"'))
def _release(fleet: Fleet, name: str) -> None:
    code, output = fleet.flintctl("release", f"microvm/fleet/{name}")
    assert code == 0, output


@then(parsers.parse('flintctl gc plan says that "{one}" waits for {what:w} and "{other}" for {other_what:w}'))
def _waits(fleet: Fleet, one: str, what: str, other: str, other_what: str) -> None:
    found = waits(fleet)
    assert (found.get(one), found.get(other)) == (what, other_what), found


@then(parsers.parse('"{name}" is gone within {seconds:d} seconds, and its operation says why'))
def _gone(fleet: Fleet, name: str, seconds: int) -> None:
    within(seconds, lambda: name not in [each["name"] for each in fleet.items("/microvms")], f"{name} is gone")
    (deletion,) = [
        each
        for each in fleet.items("/operations")
        if each["kind"] == "delete" and each["target"]["name"] == name and each["actor"] == "gc"
    ]
    assert deletion["reason"] == "it failed: ImageNotFound: it is broken"
    assert deletion["phase"] == "succeeded"


@then(parsers.parse('"{name}" is still there, and cannot be deleted: "{reason}"'))
def _kept(fleet: Fleet, name: str, reason: str) -> None:
    assert fleet.get(name)["status"]["phase"] == "failed"
    with pytest.raises(ProblemError) as refused:
        fleet.client.request("DELETE", f"/namespaces/fleet/microvms/{name}")
    assert refused.value.code == "held"
    assert reason in str(refused.value)


# -- the declared policy -----------------------------------------------------------------------------------------------


@given("a GC policy that keeps failed microVMs for ever")
def _keeps(fleet: Fleet) -> Iterator[None]:
    declare_policy(fleet, None)
    yield
    fleet.client.request("DELETE", "/gcpolicies/default")


@when(parsers.parse("the operator declares that failed microVMs are kept for {seconds:d} seconds"))
def _shorter(fleet: Fleet, seconds: int) -> None:
    declare_policy(fleet, seconds)


@then(parsers.parse('"{name}" is refused as the name of a GC policy'))
def _one_policy(fleet: Fleet, name: str) -> None:
    with pytest.raises(ProblemError) as refused:
        fleet.client.request("PUT", f"/gcpolicies/{name}", body={"spec": {}})
    assert refused.value.code == "invalid"
    assert "called default" in str(refused.value)


def declare_policy(fleet: Fleet, failed_after_s: int | None) -> None:
    fleet.client.request("PUT", "/gcpolicies/default", body={"spec": {"failed_microvm_after_s": failed_after_s}})


# -- unmanaged microVMs ------------------------------------------------------------------------------------------------


@given("host h1 is admitted, and has a copy of ours that nobody declares, and a stranger")
def _unmanaged(fleet: Fleet, stranger: None) -> None:
    admit(fleet, "h1")
    cluster_id = fleet.client.get("/cluster").body["cluster_id"]
    fleet.before["collected"] = counted(fleet)
    row = Row(
        native_id=COPY,
        uid=COPY,
        cluster_id=cluster_id,
        namespace="fleet",
        name="forgotten",
        epoch=1,
        generation=1,
        power=ObservedPower.RUNNING,
        vcpu=1,
        memory_in_mb=128,
    )
    store = Store(fleet.state_dir("h1"))
    store.put(row)
    store.put(Row(STRANGER, None, None, None, "stranger", None, None, ObservedPower.RUNNING, 1, 128))
    store.close()
    within(20, lambda: fleet.client.get("/hosts/h1").body["status"]["unmanaged"], "the host reports them")


@then("flintctl gc plan says that the copy waits for grace and the stranger for operator")
def _reported(fleet: Fleet) -> None:
    found = waits(fleet)
    assert (found.get(COPY), found.get(STRANGER)) == ("grace", "operator"), found


@then(parsers.parse("the copy is gone from the host within {seconds:d} seconds, and the stranger is not"))
def _ended(fleet: Fleet, seconds: int) -> None:
    within(seconds, lambda: not any(COPY in line for line in listed(fleet, "h1")), "the copy is gone")
    assert any(line.startswith(f"{STRANGER}\t") for line in listed(fleet, "h1"))
    within(10, lambda: not fleet.client.get("/hosts/h1").body["status"]["stale"], "the host has confirmed the order")


@then("flintctl gc status says that 1 unmanaged microVM was collected")
def _counted(fleet: Fleet) -> None:
    now = counted(fleet)
    assert now["unmanaged_microvm"] == fleet.before["collected"]["unmanaged_microvm"] + 1


# -- what microVMs left ------------------------------------------------------------------------------------------------

TAP, VOLUMES, FOLDER = "tap/sim0", "quarantine/01DESTROYED-3", "vms/somebodys"


@given("host h1 is admitted, and a tap, volumes in quarantine and a folder without a mark are left there")
def _left(fleet: Fleet) -> Iterator[None]:
    admit(fleet, "h1")
    fleet.before["collected"] = counted(fleet)
    fleet.tamper("leave", TAP, host="h1")
    fleet.tamper("leave", VOLUMES, "--kind", "volumes", "--microvm", "fleet/gone", "--epoch", "3", host="h1")
    fleet.tamper("leave", FOLDER, "--kind", "folder", "--unmarked", host="h1")
    within(20, lambda: left_on(fleet) == [VOLUMES, TAP, FOLDER], "the host tells of them")
    yield
    store = Store(fleet.state_dir("h1"))
    for name in (TAP, VOLUMES, FOLDER):
        store.clear(name)
    store.close()


@then("flintctl gc plan says that the tap waits for grace and the folder for operator")
def _left_waits(fleet: Fleet) -> None:
    found = waits(fleet)
    assert (found.get(TAP), found.get(FOLDER)) == ("grace", "operator"), found


@when(parsers.parse('the operator holds the volumes because "{reason}"'))
def _hold_volumes(fleet: Fleet, reason: str) -> None:
    code, output = fleet.flintctl("hold", f"found/h1/{VOLUMES}", "--reason", reason)
    assert code == 0, output


@when("the operator releases the volumes")
def _release_volumes(fleet: Fleet) -> None:
    code, output = fleet.flintctl("release", f"found/h1/{VOLUMES}")
    assert code == 0, output


@then("flintctl gc plan says that the volumes wait for hold")
def _volumes_wait(fleet: Fleet) -> None:
    assert waits(fleet).get(VOLUMES) == "hold"
    code, output = fleet.flintctl("host", "show", "h1")
    assert code == 0
    assert "held: somebody wants the data back" in output


@then(parsers.parse("the {what:w} is gone from the host within {seconds:d} seconds, and the folder is not"))
@then(parsers.parse("the {what:w} are gone from the host within {seconds:d} seconds, and the folder is not"))
def _left_no_more(fleet: Fleet, what: str, seconds: int) -> None:
    name = {"tap": TAP, "volumes": VOLUMES}[what]
    within(seconds, lambda: name not in left_on(fleet), f"{name} is gone")
    store = Store(fleet.state_dir("h1"))
    there = [left.name for left in store.remains()]
    store.close()
    assert name not in there
    assert FOLDER in there


@then("flintctl gc status says that 1 leftover and 1 kept volume were collected")
def _left_counted(fleet: Fleet) -> None:
    now, before = counted(fleet), fleet.before["collected"]
    for trigger in ("leftover", "quarantined_volumes"):
        assert now[trigger] == before[trigger] + 1


def left_on(fleet: Fleet) -> list[str]:
    told = fleet.client.get("/hosts/h1").body["status"]["left_behind"]
    return [each["name"] for each in told or []]


# -- adoption ----------------------------------------------------------------------------------------------------------

FORGOTTEN = "01FORGOTTENBYARESTORE00000"


@given("host h1 runs a microVM of this cluster that nobody declares any more")
def _forgotten(fleet: Fleet) -> None:
    admit(fleet, "h1")
    fleet.client.request("PUT", "/namespaces/fleet", body=NAMESPACE)
    vm = VMDefinition(
        cluster_id=fleet.client.get("/cluster").body["cluster_id"],
        uid=FORGOTTEN,
        namespace="fleet",
        name="forgotten",
        epoch=2,
        generation=3,
        labels={},
        spec=MicroVMSpec(vcpu=1, memory_in_mb=128, kernel=Kernel(image="demo/kernel:6.1")),
    )
    row = Row(
        native_id=FORGOTTEN,
        uid=FORGOTTEN,
        cluster_id=vm.cluster_id,
        namespace=vm.namespace,
        name=vm.name,
        epoch=vm.epoch,
        generation=vm.generation,
        power=ObservedPower.RUNNING,
        vcpu=1,
        memory_in_mb=128,
        ready_at_ms=time.time_ns() // 1_000_000,
        definition=msgspec.json.encode(vm),
    )
    store = Store(fleet.state_dir("h1"))
    store.put(row)
    store.close()
    within(20, lambda: fleet.client.get("/hosts/h1").body["status"]["unmanaged"], "the host reports it")
    fleet.before["started"] = row.ready_at_ms


@when(parsers.parse('the operator asks whether it may be adopted as "{name}"'))
def _ask(fleet: Fleet, name: str) -> None:
    code, output = fleet.flintctl("host", "adopt", "h1", FORGOTTEN, "--name", f"fleet/{name}", "--dry-run")
    assert code == 0, output
    assert "would be adopted" in output


@then("nothing is declared")
def _nothing(fleet: Fleet) -> None:
    assert FORGOTTEN not in [each["uid"] for each in fleet.items("/microvms")]


@when(parsers.parse('the operator adopts it as "{name}"'))
def _adopt(fleet: Fleet, name: str) -> None:
    code, output = fleet.flintctl("host", "adopt", "h1", FORGOTTEN, "--name", f"fleet/{name}")
    assert code == 0, output


@then(parsers.parse('"{name}" is ready on h1 within {seconds:d} seconds, and its guest was never stopped'))
def _adopted(fleet: Fleet, name: str, seconds: int) -> None:
    within(seconds, lambda: fleet.get(name)["status"]["ready"], f"{name} is ready")
    found = fleet.get(name)
    assert (found["uid"], found["generation"], found["status"]["epoch"]) == (FORGOTTEN, 3, 2)
    assert (found["status"]["host"], found["status"]["drift"]["class"]) == ("h1", "in_sync")
    store = Store(fleet.state_dir("h1"))
    (row,) = store.all()
    store.close()
    assert (row.native_id, row.ready_at_ms) == (FORGOTTEN, fleet.before["started"])
    within(10, lambda: not fleet.client.get("/hosts/h1").body["status"]["unmanaged"], "nothing there is unmanaged")


@then("it cannot be adopted again")
def _once(fleet: Fleet) -> None:
    code, output = fleet.flintctl("host", "adopt", "h1", FORGOTTEN, "--name", "fleet/twice")
    assert code != 0
    assert "/instance: host h1 has no such unmanaged microVM" in output
