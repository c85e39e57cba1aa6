"""Failover: what is given up on lost hosts and why the rest is not, and the breaker that stops it all."""

from __future__ import annotations

import pytest
from support.builders import (
    agent_connected,
    confirm_fenced,
    declare_failover_policy,
    declare_host,
    detached,
    fenced,
    suspected,
)
from support.driven import DrivenMachine

from controlplane.decide.breaker import Breaker, FailoverLimits, breaker
from controlplane.decide.failover import Failover, failover
from controlplane.machine.outcome import Applied
from controlplane.model.commands import CancelOverride, Delete, OverrideBreaker
from controlplane.model.resources import MicroVM
from controlplane.model.spec import HostFailure, Placement, Recovery, Restart, Volume, VolumeKind
from controlplane.model.types import Kind

MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
LIMITS = FailoverLimits()


def fleet(count: int) -> DrivenMachine:
    machine = DrivenMachine()
    for number in range(1, count + 1):
        machine.with_host(f"h{number}")
    return machine


def decide(machine: DrivenMachine, limits: FailoverLimits = LIMITS, *, in_s: float = 0) -> Failover:
    """As the leader of the machine's term decides it so long after the last command."""
    return failover(machine.state, now_ms=machine.at + int(in_s * 1000), term=machine.term, limits=limits)


def uids(machine: DrivenMachine, limits: FailoverLimits = LIMITS, *, in_s: float = 0) -> list[str]:
    return [each.uid for each in decide(machine, limits, in_s=in_s).resurrect]


def held(machine: DrivenMachine, vm: MicroVM, limits: FailoverLimits = LIMITS) -> str | None:
    return decide(machine, limits).held.get(vm.meta.uid)


def test_nothing_is_lost_and_nothing_is_given_up() -> None:
    machine = fleet(2)
    machine.active(recovery=MOVES)
    machine.accept(suspected())
    found = decide(machine)
    assert (found.resurrect, dict(found.held)) == ((), {})


def test_what_is_decided_is_what_the_machine_takes() -> None:
    machine = fleet(3)
    machine.term = 7
    machine.active("a", recovery=MOVES)
    machine.placed("b", recovery=MOVES)
    machine.active("c", host="h2", recovery=MOVES)
    machine.lose()
    decided = decide(machine).resurrect
    assert [(each.uid, each.epoch, each.host, each.term) for each in decided] == [
        ("vm-a", 1, "h1", 7),
        ("vm-b", 1, "h1", 7),
    ]
    assert {each.reason for each in decided} == {"silent for 14.3 s"}
    assert all(isinstance(machine.do(each), Applied) for each in decided)
    assert uids(machine) == []


def test_the_oldest_come_first_and_the_rest_in_their_turn() -> None:
    machine = fleet(4)
    for name, host in (("z", "h1"), ("b", "h2"), ("a", "h1")):
        machine.active(name, host=host, recovery=MOVES)
    machine.lose("h1").accept(confirm_fenced("h1"))
    machine.lose("h2")
    two = FailoverLimits(per_round=2)
    assert uids(machine, two) == ["vm-z", "vm-b"]
    assert held(machine, machine.vm("a"), two) == "its turn comes: at most 2 are restarted at a time, the oldest first"
    assert uids(machine) == ["vm-z", "vm-b", "vm-a"]


def test_an_operators_word_is_the_reason() -> None:
    machine = fleet(3)
    machine.active(recovery=MOVES)
    machine.accept(suspected())
    machine.accept(confirm_fenced(), actor="bob")
    (decided,) = decide(machine).resurrect
    assert decided.reason == "confirmed as off by bob"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({}, "its recovery.on_host_failure is never"),
        ({"recovery": MOVES, "placement": Placement(host="h1")}, "its placement.host asks for host h1 alone"),
        ({"recovery": MOVES, "root_volume": Volume(kind=VolumeKind.LOCAL)}, "what is on its local volume root"),
    ],
)
def test_why_what_its_policy_keeps_is_held(spec: dict[str, object], words: str) -> None:
    machine = fleet(3)
    vm = machine.active(**spec)
    machine.lose()
    assert str(held(machine, vm)).startswith(words)
    assert uids(machine) == []


def test_why_what_may_move_is_still_held() -> None:
    machine = fleet(3)
    vm = machine.active(recovery=MOVES)
    kept = machine.active("kept", recovery=MOVES)
    going = machine.active("going", recovery=MOVES)
    machine.accept(agent_connected(fences=False))
    machine.accept(agent_connected())
    machine.confirm(vm)
    machine.accept(Delete(kind=Kind.MICROVM, namespace="demo", name="going"))
    machine.accept(detached())
    assert held(machine, vm) == "host h1 is detached: it is not fenced yet"
    assert "which never confirmed to end it with its lease" in str(held(machine, kept))
    assert held(machine, going) == "it is being deleted, which host h1 has to confirm"
    machine.accept(fenced())
    assert uids(machine) == ["vm-web"]
    machine.accept(confirm_fenced())
    assert uids(machine) == ["vm-web", "vm-kept"]


# -- the breaker -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "lost", "max_unhealthy", "opens"),
    [
        (1, 1, 0.5, False),  # one lost host is one lost host
        (2, 1, 0.1, False),
        (2, 2, 0.5, True),
        (3, 2, 0.5, True),
        (4, 2, 0.5, False),  # more than half
        (4, 3, 0.5, True),
        (5, 2, 0.3, True),
        (3, 3, 1.0, False),  # switched off
        (3, 2, 0.0, True),
    ],
)
def test_when_the_breaker_opens(hosts: int, lost: int, max_unhealthy: float, opens: bool) -> None:
    machine = fleet(hosts)
    for number in range(1, lost + 1):
        machine.accept(detached(f"h{number}"))
    found = breaker(machine.state, FailoverLimits(max_unhealthy=max_unhealthy), now_ms=machine.at)
    assert (found.open, found.lost, found.of) == (opens, lost, hosts)
    assert found.message.startswith(f"{lost} of {hosts} hosts are lost") if opens else found.message == ""


def test_only_hosts_that_were_there_count() -> None:
    machine = fleet(3)
    machine.accept(agent_connected("stranger"))
    machine.accept(declare_host("never-seen"))
    machine.accept(suspected("h1"))
    machine.accept(detached("h2"))
    machine.accept(detached("h3"))
    machine.accept(agent_connected("h3"))
    assert breaker(machine.state, LIMITS, now_ms=machine.at) == Breaker(open=False, lost=1, of=3, message="")


def test_the_breaker_holds_all_but_what_was_on_hosts_known_to_be_off() -> None:
    machine = fleet(5)
    for number in range(1, 5):
        machine.active(f"on-{number}", host=f"h{number}", recovery=MOVES)
        machine.lose(f"h{number}")
    cut = breaker(machine.state, LIMITS, now_ms=machine.at)
    assert cut.open
    assert uids(machine) == []
    assert held(machine, machine.vm("on-1")) == cut.message
    for name, moved in (("h1", ["vm-on-1"]), ("h2", ["vm-on-1", "vm-on-2"])):
        machine.accept(confirm_fenced(name))
        assert breaker(machine.state, LIMITS, now_ms=machine.at).open
        assert uids(machine) == moved, "a word about one host says nothing of the others"
    machine.accept(agent_connected("h4"))
    assert breaker(machine.state, LIMITS, now_ms=machine.at).open, "three of five are lost"
    machine.accept(agent_connected("h2"))
    assert not breaker(machine.state, LIMITS, now_ms=machine.at).open
    assert uids(machine) == ["vm-on-1", "vm-on-3"]


def test_the_word_about_one_of_two_hosts_moves_nothing_of_the_other() -> None:
    machine = fleet(2)
    for name in ("h1", "h2"):
        machine.active(f"on-{name}", host=name, recovery=MOVES)
        machine.lose(name)
    machine.accept(confirm_fenced("h1"))
    assert uids(machine, in_s=24 * 3600) == ["vm-on-h1"]
    assert held(machine, machine.vm("on-h2")) == breaker(machine.state, LIMITS, now_ms=machine.at).message
    machine.accept(confirm_fenced("h2"))
    assert not breaker(machine.state, LIMITS, now_ms=machine.at).open
    assert uids(machine) == ["vm-on-h1", "vm-on-h2"]


def lose_at(machine: DrivenMachine, name: str, at_s: int) -> None:
    machine.at = at_s * 1000
    machine.lose(name)


def test_hosts_that_were_lost_one_by_one_are_no_mass_loss() -> None:
    machine = fleet(4)
    for number in (1, 2, 3, 4):
        machine.active(f"on-{number}", host=f"h{number}", recovery=MOVES)
        lose_at(machine, f"h{number}", 10_000 + number * 601)
    assert not breaker(machine.state, LIMITS, now_ms=machine.at).open
    assert uids(machine) == ["vm-on-1", "vm-on-2", "vm-on-3", "vm-on-4"]
    assert breaker(machine.state, FailoverLimits(window_s=700), now_ms=machine.at).open


def test_what_was_lost_long_ago_holds_nothing_of_what_is_lost_now() -> None:
    machine = fleet(6)
    for number in range(1, 7):
        machine.active(f"on-{number}", host=f"h{number}", recovery=MOVES)
    for number in (1, 2, 3, 4):
        lose_at(machine, f"h{number}", 10_000 + number)
    lose_at(machine, "h5", 20_000)
    cut = breaker(machine.state, LIMITS, now_ms=machine.at)
    assert (cut.open, cut.lost, cut.of, cut.hosts) == (True, 4, 6, {"h1", "h2", "h3", "h4"})
    assert uids(machine) == ["vm-on-5"]
    machine.lose("h6")
    assert uids(machine) == [], "both hosts that were left are lost at once"


def test_a_host_that_came_later_makes_no_mass_loss_smaller() -> None:
    machine = fleet(3)
    for name in ("h1", "h2"):
        machine.lose(name)
    machine.at += 3600_000
    for name in ("h4", "h5"):
        machine.with_host(name)
    cut = breaker(machine.state, LIMITS, now_ms=machine.at)
    assert (cut.open, cut.lost, cut.of) == (True, 2, 3)


def test_an_override_lets_everything_through_until_it_ends() -> None:
    machine = fleet(3)
    vm = machine.active(recovery=MOVES)
    never = machine.active("never")
    for name in ("h1", "h2"):
        machine.lose(name)
    machine.accept(OverrideBreaker(for_s=60, reason="burnt"), actor="bob")
    cut = breaker(machine.state, LIMITS, now_ms=machine.at)
    assert (cut.open, cut.stops, cut.message) == (True, False, "")
    assert cut.override is not None
    assert (cut.override.actor, cut.override.reason) == ("bob", "burnt")
    assert uids(machine, in_s=59.9) == [vm.meta.uid]
    assert held(machine, never) == "its recovery.on_host_failure is never"
    assert uids(machine, in_s=60) == []
    machine.accept(CancelOverride(of="breaker"))
    assert uids(machine) == []
    assert breaker(machine.state, LIMITS, now_ms=machine.at).stops


# -- policies ----------------------------------------------------------------------------------------------------------


def moves_by(policy: str) -> Recovery:
    return Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE, policy=policy)


def test_a_higher_priority_comes_first_and_then_the_oldest() -> None:
    machine = fleet(3)
    machine.accept(declare_failover_policy("first", priority=10))
    machine.accept(declare_failover_policy("last", priority=-1))
    for name, recovery in (("a", moves_by("last")), ("b", MOVES), ("c", moves_by("first")), ("d", moves_by("first"))):
        machine.active(name, recovery=recovery)
    machine.lose()
    assert uids(machine) == ["vm-c", "vm-d", "vm-b", "vm-a"]
    assert uids(machine, FailoverLimits(per_round=1)) == ["vm-c"]


def test_a_delay_counts_from_the_fence() -> None:
    machine = fleet(3)
    machine.accept(declare_failover_policy("patient", restart=Restart.DELAYED, delay_s=60))
    machine.active("a", recovery=moves_by("patient"))
    machine.lose()
    since = machine.host().since
    assert held(machine, machine.vm("a")) == "failover policy patient waits 60 s from when host h1 was fenced"
    machine.at = since + 59_999
    assert uids(machine) == []
    machine.at = since + 60_000
    assert uids(machine) == ["vm-a"]


def test_a_host_that_is_certainly_off_is_not_waited_for() -> None:
    machine = fleet(3)
    machine.accept(declare_failover_policy("patient", restart=Restart.DELAYED, delay_s=60))
    machine.active("a", recovery=moves_by("patient"))
    machine.lose()
    machine.accept(confirm_fenced("h1"))
    assert uids(machine) == ["vm-a"]


def test_a_policy_may_say_never() -> None:
    machine = fleet(3)
    machine.accept(declare_failover_policy("stay", restart=Restart.NEVER))
    machine.active("a", recovery=moves_by("stay"))
    machine.lose()
    machine.accept(confirm_fenced("h1"))
    assert held(machine, machine.vm("a")) == "failover policy stay says restart = never: it waits for host h1"
    machine.accept(declare_failover_policy("stay"))
    assert uids(machine) == ["vm-a"]


def test_a_rate_holds_over_rounds_and_leaders_and_drops_nothing() -> None:
    machine = fleet(3)
    machine.accept(declare_failover_policy("slow", max_per_minute=2))
    for name in "abcde":
        machine.active(name, recovery=moves_by("slow"))
    machine.active("z", recovery=MOVES)
    machine.lose()
    moved: list[list[str]] = []
    for _ in range(4):
        # Each round begins from the state alone, as a new leader's does.
        decided = decide(machine)
        moved.append([each.uid for each in decided.resurrect])
        assert len(decided.resurrect) + len(decided.held) == 6 - sum(map(len, moved[:-1]))
        for each in decided.resurrect:
            machine.accept(each)
        machine.at += 40_000
        waiting = decided.held.get("vm-e")
        assert waiting == "its turn comes: failover policy slow has 2 restarted in a minute"
    assert moved == [["vm-a", "vm-b", "vm-z"], [], ["vm-c", "vm-d"], []]
    assert uids(machine) == ["vm-e"]
