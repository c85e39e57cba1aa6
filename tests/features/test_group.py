"""Steps of group.feature."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from features.conftest import Fleet
from pytest_bdd import given, parsers, scenarios, then, when
from support.cluster import items, leader_of, within

from controlplane.cli.client import Client
from controlplane.cli.errors import CliError, ProblemError

scenarios("group.feature")

PATH = "/namespaces/fleet/microvmgroups/web"
WITNESS_PERIOD_S = 0.2
READY_DEADLINE_S = 3


@dataclass
class Group:
    """The group as it was declared last."""

    client: Client
    replicas: int = 3
    kernel: str = "demo/kernel:6.1"
    unplaceable: bool = False

    def declare(self) -> None:
        template: dict[str, Any] = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": self.kernel}}
        if self.unplaceable:
            # On another kernel, or it would be no replacement.
            template |= {"kernel": {"image": "demo/kernel:bad"}, "placement": {"required_host_labels": {"gpu": "yes"}}}
        rollout = {"max_surge": 0, "max_unavailable": 1, "ready_deadline_s": READY_DEADLINE_S}
        spec = {"replicas": self.replicas, "template": template, "rollout": rollout}
        self.client.request("PUT", PATH, body={"spec": spec})

    def read(self) -> dict[str, Any]:
        return self.client.get(PATH).body

    def members(self) -> list[dict[str, Any]]:
        return [each for each in items(self.client, "/namespaces/fleet/microvms") if each["name"].startswith("web-")]


@dataclass
class Witness:
    """Counts members 5 times a second, by what the API tells of the microVMs themselves."""

    group: Group
    ready: list[int] = field(default_factory=list[int])
    exist: list[int] = field(default_factory=list[int])
    _stop: threading.Event = field(default_factory=threading.Event)

    def watch(self) -> None:
        while not self._stop.wait(WITNESS_PERIOD_S):
            try:
                members = self.group.members()
            except CliError:  # while there is no leader, nobody can tell
                continue
            going = [each for each in members if each["status"]["phase"] != "deleting"]
            self.ready.append(sum(each["status"]["ready"] for each in going))
            self.exist.append(len(members))

    def stop(self) -> None:
        self._stop.set()


@pytest.fixture
def group(fleet: Fleet) -> Group:
    return Group(fleet.client)


@pytest.fixture
def witness(group: Group) -> Iterator[Witness]:
    made = Witness(group)
    thread = threading.Thread(target=made.watch, daemon=True)
    thread.start()
    yield made
    made.stop()
    thread.join()


@given("the hosts and the namespace are declared")
def _declared(fleet: Fleet) -> None:
    for host in ("h1", "h2", "h3"):
        fleet.client.request("PUT", f"/hosts/{host}", body={"spec": {}})
    fleet.client.request("PUT", "/namespaces/fleet", body={"spec": {}})


@given(
    parsers.parse(
        'a group of 3 on kernel "{kernel}", of which 1 may be unavailable, is ready within {seconds:d} seconds'
    )
)
def _group(group: Group, kernel: str, seconds: int) -> None:
    group.declare()
    _all_ready(group, 3, kernel, seconds)


@given("a witness counts the ready members")
def _witnessed(witness: Witness) -> None:
    within(10, lambda: len(witness.ready) > 1, "the witness counts")


@when(parsers.parse("the group is declared with {replicas:d} replicas"))
def _resize(group: Group, replicas: int) -> None:
    group.replicas = replicas
    group.declare()


@when(parsers.parse('the group is declared with kernel "{kernel}"'))
def _roll(group: Group, kernel: str) -> None:
    group.kernel, group.unplaceable = kernel, False
    group.declare()


@when("the group is declared with a template that no host takes")
def _spoil(group: Group) -> None:
    group.unplaceable = True
    group.declare()


@when("the leader is killed in the middle of the roll")
def _kill_leader(fleet: Fleet, group: Group) -> None:
    leader = leader_of(fleet.cluster, fleet.client)

    def in_the_middle() -> bool:
        return 1 <= group.read()["status"]["updated"] < 3

    within(20, in_the_middle, "the roll is in the middle")
    fleet.cluster.kill_member(leader)


@when("the group is deleted")
def _delete(group: Group) -> None:
    group.client.request("DELETE", PATH)


@then(parsers.parse('all {count:d} members are ready on kernel "{kernel}" within {seconds:d} seconds'))
def _all_ready(group: Group, count: int, kernel: str, seconds: int) -> None:
    def done() -> bool:
        try:
            return bool(group.read()["status"]["complete"])
        except CliError:
            return False

    within(seconds, done, f"{count} members are ready on {kernel}")
    members = group.members()
    assert len(members) == count
    assert {each["spec"]["kernel"]["image"] for each in members} == {kernel}
    assert all(each["status"]["ready"] for each in members)


@then("a microVM cannot be declared under a member's name")
def _owned(group: Group) -> None:
    member = group.members()[0]
    with pytest.raises(ProblemError, match="is a member of group web") as refused:
        group.client.request("PUT", f"/namespaces/fleet/microvms/{member['name']}", body={"spec": member["spec"]})
    assert refused.value.code == "owned_by_group"


@then(parsers.parse("nothing is left of it within {seconds:d} seconds"))
def _gone(group: Group, seconds: int) -> None:
    within(seconds, lambda: group.client.find(PATH) is None, "the group is gone")
    assert group.members() == []


@then(parsers.parse("the witness saw {ready:d} ready members or more, and {most:d} members or fewer"))
def _saw(witness: Witness, ready: int, most: int) -> None:
    assert len(witness.ready) > 5
    assert min(witness.ready) >= ready, witness.ready
    assert max(witness.exist) <= most, witness.exist


@then(parsers.parse("the roll is paused within {seconds:d} seconds, with {ready:d} members ready"))
def _paused(group: Group, seconds: int, ready: int) -> None:
    def paused() -> bool:
        conditions = {each["type"]: each for each in group.read()["status"]["conditions"]}
        return (conditions["Paused"]["status"], conditions["Paused"]["reason"]) == ("true", "ReadyDeadlineExceeded")

    within(seconds, paused, "the roll is paused")
    assert group.read()["status"]["ready"] == ready


@then("flintctl says that the group is paused")
def _told(fleet: Fleet) -> None:
    code, said = fleet.flintctl("group", "wait", "fleet/web")
    assert code == 1
    assert "group fleet/web is paused: ReadyDeadlineExceeded: 1 member" in said
    code, said = fleet.flintctl("group", "list")
    assert code == 0
    assert "2/3" in said
