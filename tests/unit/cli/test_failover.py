"""What flintctl says of lost hosts, and how an operator's word is asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from support.builders import confirm_fenced, detached, fenced, resurrect, suspected
from unit.api.rig import Rig

from controlplane.model.resources import WAITS_FOR_LEASE, Failure, HostPhase, ObservedPower

Cli = Callable[..., Any]
MOVES = {"on_host_failure": "restart_elsewhere"}


@pytest.fixture
def fleet(api: Rig) -> Rig:
    """Three hosts, the first of which is fenced; demo/web may move, demo/stays may not."""
    for name in ("h1", "h2", "h3"):
        api.with_host(name)
    api.active(recovery=MOVES)
    api.active("stays")
    for command in (suspected(), detached(), fenced()):
        api.do(command)
    return api


def test_an_operator_says_that_hosts_are_off(cli: Cli, fleet: Rig) -> None:
    fleet.do(suspected("h2"))
    answer = cli("host", "confirm-fenced", "h1", "h2", "--yes")
    assert answer.code == 0
    assert answer.out.splitlines() == [
        "host h1: confirmed as off",
        "host h2: confirmed as off; fenced once its last lease has ended, in seconds",
    ]
    assert "there will be two of each" in answer.err
    assert "h1: fenced, last seen" in answer.err
    assert "h2: suspect, last seen" in answer.err
    phases = [fleet.replica.state.hosts[name].phase for name in ("h1", "h2")]
    assert phases == [HostPhase.FENCED, HostPhase.DETACHED]


def test_nothing_is_confirmed_unasked(cli: Cli, fleet: Rig) -> None:
    answer = cli("host", "confirm-fenced", "h1")
    assert answer.code == 1
    assert "--yes" in answer.err
    assert fleet.replica.state.hosts["h1"].confirmed_by is None


@pytest.mark.parametrize(("name", "words"), [("h9", "host h9 does not exist"), ("h2", "host h2 is ready")])
def test_what_cannot_be_confirmed_is_named(cli: Cli, fleet: Rig, name: str, words: str) -> None:
    answer = cli("host", "confirm-fenced", name, "--yes")
    assert answer.code == 1
    assert words in answer.err


def test_a_mistyped_name_confirms_nothing(cli: Cli, fleet: Rig) -> None:
    assert cli("host", "confirm-fenced", "h1", "h9", "--yes").code == 1
    assert fleet.replica.state.hosts["h1"].confirmed_by is None


def test_a_lost_host_says_why_and_who_confirmed_it(cli: Cli, fleet: Rig) -> None:
    fleet.do(resurrect(fleet.vm()))
    first = cli("host", "list").out.splitlines()[1]
    assert "fenced" in first
    assert "silent for 14.3 s" in first
    fleet.post("/hosts/h1/actions/confirm-fenced")
    assert "silent for 14.3 s; off, says alice" in cli("host", "list").out
    shown = cli("host", "show", "h1").out
    assert "Orders to destroy" in shown
    assert fleet.vm().meta.uid in shown


def test_why_tells_what_a_lost_host_means(cli: Cli, fleet: Rig) -> None:
    assert "not restarted elsewhere: its recovery.on_host_failure is never." in cli("vm", "why", "demo/stays").out
    fleet.do(resurrect(fleet.vm()))
    told = cli("vm", "why", "demo/web").out
    assert "demo/web waits for its next placement." in told
    assert "Its copy of epoch 1 was given up on host h1 at" in told


def test_why_tells_what_waits_for_a_lease(cli: Cli, fleet: Rig) -> None:
    waits = Failure(code=WAITS_FOR_LEASE, message="waits for a lease since 07:00: none was granted to its host")
    fleet.put_vm("new", recovery=MOVES)
    fleet.place("new", "h2")
    fleet.report("new", failure=waits, generation=None, ready=False, power=ObservedPower.ABSENT)
    told = cli("vm", "why", "demo/new").out
    assert "It does not run yet: host h2: waits for a lease since 07:00: none was granted to its host." in told
    assert "WaitingForLease" in cli("vm", "show", "demo/new").out


def test_an_open_breaker_is_not_overlooked(cli: Cli, fleet: Rig) -> None:
    calm = cli("cluster", "status").out
    assert "FAILOVER IS STOPPED" not in calm
    assert "ready; 1 of 3 hosts lost" in calm
    fleet.do(detached("h2"))
    loud = cli("cluster", "status").out
    assert loud.startswith("FAILOVER IS STOPPED: 2 of 3 hosts are lost")
    assert "confirm-fenced" in loud
    for name in ("h2", "h1"):
        fleet.do(confirm_fenced(name))
    assert "FAILOVER IS STOPPED" not in cli("cluster", "status").out


def test_the_breaker_is_overridden_for_a_time_with_a_reason(cli: Cli, fleet: Rig) -> None:
    for command in (suspected("h2"), detached("h2"), fenced("h2")):
        fleet.do(command)
    stopped = cli("failover", "status")
    assert stopped.out.startswith("FAILOVER IS STOPPED: 2 of 3 hosts are lost")
    assert "demo/web" in stopped.out
    for arguments in ((), ("--for", "30m"), ("--reason", "x"), ("--for", "soon", "--reason", "x")):
        assert cli("failover", "override", *arguments, "--yes").code == 2
    assert cli("failover", "override", "--cancel", "--for", "1h").code == 2
    unasked = cli("failover", "override", "--for", "30m", "--reason", "rack 3 burnt down")
    assert (unasked.code, "--yes" in unasked.err) == (1, True)
    assert not fleet.replica.state.overrides
    done = cli("failover", "override", "--for", "30m", "--reason", "rack 3 burnt down", "--yes")
    assert done.code == 0, done.err
    assert "only fenced hosts are given up" in done.err
    assert "overridden by alice until" in done.out
    assert "Restarted elsewhere next, in this order" in done.out
    found = fleet.replica.state.overrides["breaker"]
    assert found.until - found.at == 1800_000
    assert "ready; 2 of 3 hosts lost; overridden by alice" in cli("cluster", "status").out
    assert json.loads(cli("failover", "status", "-o", "json").out)["override"]["reason"] == "rack 3 burnt down"
    assert cli("failover", "override", "--cancel").out.startswith("FAILOVER IS STOPPED")
    assert cli("failover", "override", "--cancel").code == 1
