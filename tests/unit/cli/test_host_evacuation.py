"""flintctl host drain, maintenance and rejoin: what is said, and that `drained` is said of an empty host alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from typing import Any

import pytest
from support.builders import agent_connected, detached, evict, fenced, observation, place, report, suspected
from unit.api.rig import Rig

from controlplane.model.commands import Destroyed, HostEvacuated, MarkStaying
from controlplane.model.resources import ObservedPower
from controlplane.ports import PlanItem, PlanVerb

Cli = Callable[..., Any]


@pytest.fixture
def fleet(api: Rig) -> Rig:
    for name in ("h1", "h2"):
        api.with_host(name)
    api.active()
    return api


def empty(fleet: Rig) -> None:
    """What the cluster does with demo/web and h1, which is told to drain."""
    uid = fleet.vm().meta.uid
    fleet.do(evict(fleet.vm()))
    fleet.do(report(destroyed=[Destroyed(uid=uid, epoch=1)]))
    fleet.do(place(fleet.vm(), "h2"))
    fleet.do(report(observation(fleet.vm()), host="h2"))
    fleet.do(HostEvacuated(host="h1"))


def test_a_drain_is_watched_until_nothing_is_left(cli: Cli, fleet: Rig) -> None:
    def cluster() -> None:
        while fleet.replica.state.hosts["h1"].evacuating is None:
            threading.Event().wait(0.01)
        empty(fleet)

    working = threading.Thread(target=cluster)
    working.start()
    answer = cli("host", "drain", "h1", "--max-parallel", "2", "--timeout", "20")
    working.join()
    assert answer.code == 0, answer.err
    assert answer.out.startswith("host h1: drained since 20")
    assert "1 moved, 0 under way, 0 waiting, 0 staying" in answer.out
    assert fleet.replica.state.hosts["h1"].spec.evacuation.max_parallel == 2
    assert "drained" in cli("host", "list").out


def test_a_drain_that_cannot_end_says_who_stays_and_why(cli: Cli, fleet: Rig) -> None:
    fleet.active("pinned", placement={"host": "h1"})
    cli("host", "drain", "h1", "--no-wait")
    fleet.do(evict(fleet.vm()))
    fleet.do(report(destroyed=[Destroyed(uid=fleet.vm().meta.uid, epoch=1)]))
    fleet.do(place(fleet.vm(), "h2"))
    fleet.do(report(observation(fleet.vm()), host="h2"))
    answer = cli("host", "drain", "h1", "--timeout", "20")
    assert answer.code == 1
    assert "not drained yet" in answer.out
    assert "its placement.host asks for host h1 alone" in answer.out
    assert "1 microVMs stay there" in answer.err
    assert "flintctl host maintenance h1" in answer.err
    told = json.loads(cli("host", "drain", "h1", "-o", "json").out)
    assert [(each["name"], each["stand"]) for each in told["left"]] == [("pinned", "staying")]


def test_who_gives_up_waiting_stops_nothing(cli: Cli, fleet: Rig) -> None:
    answer = cli("host", "drain", "h1", "--timeout", "1")
    assert answer.code == 1
    assert "1 microVMs are left there" in answer.err
    assert "it goes on" in answer.err
    assert fleet.replica.state.hosts["h1"].evacuating is not None


def test_maintenance_is_done_when_nothing_runs(cli: Cli, fleet: Rig) -> None:
    cli("host", "maintenance", "h1", "--no-wait")
    vm = fleet.vm()
    fleet.do(MarkStaying(host="h1", uid=vm.meta.uid, epoch=1, reason="no host takes it", halt=True))
    fleet.do(report(observation(vm, power=ObservedPower.STOPPED, halted=True)))
    fleet.do(HostEvacuated(host="h1"))
    answer = cli("host", "maintenance", "h1", "--timeout", "20")
    assert answer.code == 0, answer.err
    assert "in maintenance since" in answer.out
    assert "halted" in answer.out
    assert cli("host", "uncordon", "h1").out == "host h1: uncordoned\n"


def test_somebody_else_may_end_it(cli: Cli, fleet: Rig) -> None:
    def somebody() -> None:
        while fleet.replica.state.hosts["h1"].evacuating is None:
            threading.Event().wait(0.01)
        fleet.post("/hosts/h1/actions/uncordon")

    working = threading.Thread(target=somebody)
    working.start()
    answer = cli("host", "drain", "h1", "--timeout", "20")
    working.join()
    assert answer.code == 1
    assert "was ended by somebody else" in answer.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["host", "drain", "h9"], "404"),
        (["host", "drain", "h1", "--max-parallel", "0"], "--max-parallel"),
        (["host", "rejoin", "h9"], "404"),
    ],
)
def test_bad_input_is_named(cli: Cli, fleet: Rig, arguments: list[str], words: str) -> None:
    answer = cli(*arguments)
    assert answer.code != 0
    assert words in answer.err
    assert fleet.replica.state.hosts["h1"].evacuating is None


def test_a_rejoin_is_shown_before_and_verified_afterwards(cli: Cli, fleet: Rig) -> None:
    for command in (suspected(), detached(), fenced()):
        fleet.do(command)
    shown = cli("host", "rejoin", "h1", "--dry-run")
    assert shown.code == 0, shown.err
    assert "host h1 (fenced), a forecast" in shown.out
    assert "keep   demo/web" in shown.out
    assert "h1 is fenced after 1 s" in cli("host", "rejoin", "h1", "--timeout", "1").err
    fleet.do(agent_connected(session="again"))
    fleet.do(report(session="again", rejoined=True))
    stranger = PlanItem(PlanVerb.REPORT, None, None, None, None, "simulated", "9", "nobody accounts for it")
    fleet.agents.plans = {"h1": [stranger]}
    back = cli("host", "rejoin", "h1")
    assert (back.code, "as its agent sees it now" in back.out, "report" in back.out) == (0, True, True)
