"""What follows from silence, and when; and that what was not watched is no evidence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from support.builders import agent_connected
from unit.reconcile.world import World, session

from controlplane.machine.outcome import Rejected
from controlplane.model.commands import (
    AgentLost,
    BeginIncarnation,
    Command,
    HostDetached,
    HostFenced,
    HostHeard,
    HostSuspected,
    Report,
)
from controlplane.model.resources import HostPhase
from controlplane.ports import NoLeaderError
from controlplane.reconcile import hostwatch
from controlplane.reconcile.hostwatch import Finding
from controlplane.settings import LeaseSettings


@pytest.fixture
async def world() -> World:
    world = World()
    world.add_host()
    await world.tick()
    return world


_USUAL = LeaseSettings()
_LONG = LeaseSettings(ttl_s=20, skew=0.5, fence_s=4)
_PATIENT = LeaseSettings(resurrect_after_s=60)


@dataclass(frozen=True)
class Case:
    """`phase` of the host, and what is proposed at which seconds since it was granted to (or heard) last."""

    phase: HostPhase
    at_s: float
    expected: type[Command] | None
    lease: LeaseSettings = _USUAL
    committed_ms: int = 10_000


CASES = [
    Case(HostPhase.READY, 2.9, None),
    Case(HostPhase.READY, 3.1, HostSuspected),
    Case(HostPhase.READY, 10.9, HostSuspected),
    Case(HostPhase.READY, 11.1, HostDetached),
    Case(HostPhase.READY, 21.9, HostSuspected, committed_ms=20_000),
    Case(HostPhase.READY, 22.1, HostDetached, committed_ms=20_000),
    Case(HostPhase.READY, 29.9, HostSuspected, lease=_LONG),
    Case(HostPhase.READY, 30.1, HostDetached, lease=_LONG),
    Case(HostPhase.SUSPECT, 10.9, None),
    Case(HostPhase.SUSPECT, 11.1, HostDetached),
    Case(HostPhase.REJOINING, 10.9, None),
    Case(HostPhase.REJOINING, 11.1, HostDetached),
    Case(HostPhase.DETACHED, 14.2, None),
    Case(HostPhase.DETACHED, 14.4, HostFenced),
    Case(HostPhase.DETACHED, 25.2, None, committed_ms=20_000),
    Case(HostPhase.DETACHED, 25.4, HostFenced, committed_ms=20_000),
    Case(HostPhase.DETACHED, 35.9, None, lease=_LONG),
    Case(HostPhase.DETACHED, 36.1, HostFenced, lease=_LONG),
    Case(HostPhase.DETACHED, 59.9, None, lease=_PATIENT),
    Case(HostPhase.DETACHED, 60.1, HostFenced, lease=_PATIENT),
    Case(HostPhase.DETACHED, 69.1, None, lease=_PATIENT, committed_ms=60_000),
    Case(HostPhase.FENCED, 1000.0, None),
    Case(HostPhase.PENDING, 10.9, None),
    Case(HostPhase.PENDING, 11.1, AgentLost),
]


def bring(world: World, phase: HostPhase, *, committed_ms: int) -> None:
    """The host into `phase`, without the watch."""
    if phase is HostPhase.PENDING:
        world.accept(agent_connected("h1", session=session("h1")))
        return
    world.add_host(lease_ttl_ms=committed_ms)
    if phase is HostPhase.SUSPECT:
        world.accept(HostSuspected(host="h1", session=session("h1"), reason=""))
    if phase in (HostPhase.DETACHED, HostPhase.FENCED, HostPhase.REJOINING):
        world.accept(HostDetached(host="h1", session=session("h1"), term=1, reason=""))
    if phase is HostPhase.FENCED:
        world.accept(HostFenced(host="h1", term=1, reason=""))
    if phase is HostPhase.REJOINING:
        world.connect(lease_ttl_ms=committed_ms)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.phase.value}-{case.at_s}-{case.committed_ms}")
def test_what_follows_from_silence(case: Case) -> None:
    world = World(case.lease)
    bring(world, case.phase, committed_ms=case.committed_ms)
    assert world.host().phase is case.phase
    world.ledger.begin(1, 0.0)
    hosts = [world.host()]
    world.ledger.look(hosts, 50.0)
    if case.phase is HostPhase.READY:
        world.ledger.grant("h1", 100.0)
    elif case.phase is HostPhase.DETACHED:
        world.ledger.grant("h1", 100.0)
        world.ledger.hear("h1", 101.0)
    elif case.phase is HostPhase.SUSPECT:
        world.ledger.grant("h1", 100.0)
    else:
        world.ledger.hear("h1", 100.0)
    found = list(hostwatch.find(hosts, world.ledger, 100.0 + case.at_s, case.lease))
    assert [type(each) for each in found] == ([case.expected] if case.expected is not None else [])


async def test_a_silent_host_is_suspect_then_detached_then_fenced(world: World) -> None:
    await world.heartbeat()
    found = await world.pass_time(20)
    assert [type(each) for each in found] == [HostSuspected, HostDetached, HostFenced]
    assert world.host().phase is HostPhase.FENCED
    assert world.host().reason == "no lease was granted for 14 s, and one of 10 s has ended by any clock"


async def test_a_host_that_is_heard_stays_ready(world: World) -> None:
    assert await world.pass_time(60, "h1") == []


async def test_a_suspect_host_that_is_granted_again_is_ready(world: World) -> None:
    await world.heartbeat()
    assert [type(each) for each in await world.pass_time(5)] == [HostSuspected]
    assert [type(each) for each in await world.pass_time(2, "h1")] == [HostHeard]
    assert world.host().phase is HostPhase.READY


async def test_a_host_found_suspect_is_not_heard_before_it_is_granted(world: World) -> None:
    world.accept(HostSuspected(host="h1", session=session("h1"), reason=""))
    assert await world.pass_time(2) == []


async def test_a_new_leader_waits_for_all_of_it(world: World) -> None:
    await world.heartbeat()
    await world.pass_time(10)
    world.term = world.leads_in = 2
    found = await world.pass_time(11)
    assert found == [], "suspect already, and nothing is known of what the last leader granted"
    assert [type(each) for each in await world.pass_time(1)] == [HostDetached]
    # Detached and found so by the leader after that: its own count again.
    world.term = world.leads_in = 3
    assert await world.pass_time(14) == []
    assert [type(each) for each in await world.pass_time(1.5)] == [HostFenced]


async def test_a_restarted_front_waits_for_all_of_it(world: World) -> None:
    await world.heartbeat()
    await world.pass_time(12)
    assert world.host().phase is HostPhase.DETACHED
    world.restart_front()
    assert await world.pass_time(14) == []
    assert [type(each) for each in await world.pass_time(1.5)] == [HostFenced]


@pytest.mark.parametrize(("late_s", "again"), [(0.9, False), (1.1, True)])
async def test_a_late_tick_begins_the_waits_again(world: World, late_s: float, again: bool) -> None:
    await world.heartbeat()
    await world.pass_time(12)
    assert world.host().phase is HostPhase.DETACHED
    world.time_s += late_s
    found = await world.pass_time(4)
    assert [type(each) for each in found] == ([] if again else [HostFenced])
    if again:
        assert [type(each) for each in await world.pass_time(11)] == [HostFenced]


async def test_a_stall_makes_nobody_suspect(world: World) -> None:
    await world.heartbeat()
    world.time_s += 600
    assert await world.tick() == []
    assert await world.pass_time(10, "h1") == []


async def test_a_node_that_does_not_lead_finds_nothing(world: World) -> None:
    world.term = None
    assert await world.pass_time(60) == []


async def test_a_leader_that_was_unsure_for_a_moment_waits_again(world: World) -> None:
    await world.heartbeat()
    await world.pass_time(10)
    world.term = None
    await world.tick()
    world.term = 1
    assert await world.pass_time(11) == []
    assert [type(each) for each in await world.pass_time(1)] == [HostDetached]


async def test_nothing_is_granted_from_before_the_detachment_is_proposed(world: World) -> None:
    world.hold = []
    await world.pass_time(12)
    assert world.host().phase is HostPhase.READY, "nothing was committed"
    assert await world.heartbeat() is None
    # It comes true long after, and by then another session is there: the state keeps them apart.
    (detached,) = {each for each in world.hold if isinstance(each, HostDetached)}
    world.apply(detached)
    assert world.host().phase is HostPhase.DETACHED


async def test_an_unknown_outcome_keeps_the_host_refused_over_stalls_and_doubts(world: World) -> None:
    world.hold = []
    await world.pass_time(12)
    world.time_s += 60
    await world.tick()
    assert await world.heartbeat() is None
    world.term = None
    await world.tick()
    world.term = 1
    await world.tick()
    assert await world.heartbeat() is None, "the same term: it may still be committed"
    # The next term refuses what the last one decided, once it committed anything at all.
    world.term = world.leads_in = 2
    await world.tick()
    assert await world.heartbeat() == 10.0
    for late in world.hold:
        if isinstance(late, HostDetached):
            assert isinstance(world.apply(late), Rejected)
    assert world.host().phase is HostPhase.READY


async def test_what_was_lost_is_proposed_again(world: World) -> None:
    await world.heartbeat()
    world.refuse = True
    found = await world.pass_time(5)
    assert {type(each) for each in found} == {HostSuspected}
    assert len(found) > 1
    world.refuse = False
    await world.pass_time(1)
    assert world.host().phase is HostPhase.SUSPECT


async def test_a_proposal_under_way_is_not_made_twice(world: World) -> None:
    findings: list[Finding] = []
    while not findings:
        world.time_s += hostwatch.PERIOD_S
        findings = world.hostwatch.tick()
    world.time_s += hostwatch.PERIOD_S
    assert world.hostwatch.tick() == []
    await world.hostwatch.propose(findings[0])
    assert world.host().phase is HostPhase.SUSPECT


async def test_a_rejoining_host_is_waited_for_by_its_heartbeats(world: World) -> None:
    await world.heartbeat()
    await world.pass_time(12)
    world.connect(number=1)
    assert world.host().phase is HostPhase.REJOINING
    assert await world.pass_time(30, "h1") == [], "it is heard, and has no lease"
    found = await world.pass_time(20)
    assert [type(each) for each in found] == [HostDetached, HostFenced]


async def test_a_rejoined_host_begins_anew(world: World) -> None:
    await world.heartbeat()
    await world.pass_time(12)
    world.connect(number=2)
    await world.tick()
    world.accept(Report(host="h1", session=session("h1", 2), rejoined=True))
    assert await world.pass_time(2) == [], "its last grant is long ago, and it was not silent since it rejoined"
    await world.heartbeat(number=2)
    assert [type(each) for each in await world.pass_time(5)] == [HostSuspected]


async def test_sessions_that_come_and_go_without_a_grant_do_not_hide_a_host(world: World) -> None:
    await world.heartbeat()
    for number in range(2, 9):
        await world.pass_time(2)
        if world.host().phase is HostPhase.DETACHED:
            break
        world.connect(number=number)
    assert world.host().phase is HostPhase.DETACHED


async def test_an_undeclared_host_that_is_heard_stays(world: World) -> None:
    world.accept(agent_connected("h2", session=session("h2")))
    assert await world.pass_time(30, "h1", "h2") == []
    assert [type(each) for each in await world.pass_time(12, "h1")] == [AgentLost]
    assert "h2" not in world.state.hosts


async def test_the_end_of_the_watch_ends_the_granting(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostwatch, "PERIOD_S", 0.001)
    watching = asyncio.create_task(world.hostwatch.run())
    await asyncio.sleep(0.02)
    assert await world.heartbeat() == 10.0
    watching.cancel()
    await asyncio.wait([watching])
    with pytest.raises(NoLeaderError):
        await world.heartbeat()


async def test_a_tick_that_fails_is_followed_by_the_next(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hostwatch, "PERIOD_S", 0.001)
    state, world.state = world.state, None  # type: ignore[assignment]
    watching = asyncio.create_task(world.hostwatch.run())
    await asyncio.sleep(0.02)
    assert not watching.done()
    world.state = state
    await asyncio.sleep(0.02)
    assert await world.heartbeat() == 10.0
    watching.cancel()
    await asyncio.wait([watching])


# -- after a restore ---------------------------------------------------------------------------------------------------


def restored(*, grace_s: float = 2.0, lease_ttl_ms: int = 10_000) -> World:
    """A leader of a log whose incarnation has not begun, and a host that the state says is ready."""
    world = World(LeaseSettings(grace_s=grace_s))
    world.add_host(lease_ttl_ms=lease_ttl_ms)
    world.incarnation = 2
    return world


@pytest.mark.parametrize(
    ("grace_s", "lease_ttl_ms", "after_s"),
    [(0.0, 10_000, 14.3), (2.0, 10_000, 16.5), (20.0, 10_000, 36.3), (2.0, 5_000, 16.5), (2.0, 30_000, 38.5)],
)
async def test_an_incarnation_begins_when_nothing_of_the_longest_lease_is_left(
    grace_s: float, lease_ttl_ms: int, after_s: float
) -> None:
    world = restored(grace_s=grace_s, lease_ttl_ms=lease_ttl_ms)
    assert await world.pass_time(after_s - 0.3, "h1") == [], "nor is any host given up for a silence that is ours"
    assert await world.pass_time(1.0) == [BeginIncarnation(incarnation=2, term=1)]
    assert world.state.incarnation == 2
    assert await world.pass_time(3.0) == [], "it is said once"


async def test_hosts_that_are_back_are_not_given_up_for_the_wait() -> None:
    world = restored()
    await world.pass_time(17.5)
    assert world.host().phase is HostPhase.DETACHED
    assert await world.pass_time(10.0) == []
    world.connect(number=2)
    world.accept(Report(host="h1", session=session("h1", 2), rejoined=True))
    assert await world.heartbeat(number=2) == 10.0
    assert await world.pass_time(2.0) == []
    assert world.host().phase is HostPhase.READY


async def test_hosts_that_are_not_back_are_fenced_after_a_whole_wait_of_their_own() -> None:
    world = restored()
    await world.pass_time(17.0)
    found = await world.pass_time(14.0)
    assert found == []
    assert [type(each) for each in await world.pass_time(1.5)] == [HostFenced]


async def test_it_tells_how_long_it_still_waits_at_most() -> None:
    world = restored()
    assert world.hostwatch.waits_s == pytest.approx(16.5), "1.1 x (10 + 2 + 3), from when it begins to count"
    await world.pass_time(10.0)
    assert world.hostwatch.waits_s == pytest.approx(6.5, abs=1.0)
    world.term = None
    assert world.hostwatch.waits_s is None, "only the leader knows"
    world.term = 1
    await world.pass_time(19.0)
    assert world.state.incarnation == 2
    assert world.hostwatch.waits_s is None


def _another_term(world: World) -> None:
    world.term = world.leads_in = 2


def _another_front(world: World) -> None:
    world.restart_front()


def _a_stall(world: World) -> None:
    world.time_s += 2.0


@pytest.mark.parametrize("what", [_another_term, _another_front, _a_stall])
async def test_whatever_interrupts_the_wait_begins_it_again(what: Callable[[World], None]) -> None:
    world = restored()
    await world.pass_time(16.0)
    what(world)
    assert await world.pass_time(16.0) == []
    assert [type(each) for each in await world.pass_time(1.5)] == [BeginIncarnation]


async def test_a_beginning_that_was_lost_is_proposed_again_and_not_twice_at_once() -> None:
    world = restored()
    world.refuse = True
    assert len(await world.pass_time(19.0)) > 1
    world.refuse = False
    world.time_s += hostwatch.PERIOD_S
    (under_way,) = world.hostwatch.tick()
    world.time_s += hostwatch.PERIOD_S
    assert world.hostwatch.tick() == []
    await world.hostwatch.propose(under_way)
    assert world.state.incarnation == 2


async def test_a_host_that_the_state_does_not_know_yet_may_hold_a_longer_lease() -> None:
    world = restored()
    await world.pass_time(10.0)
    world.accept(agent_connected("h2", session=session("h2"), lease_ttl_ms=60_000))
    assert await world.pass_time(60.0) == []
    assert [type(each) for each in await world.pass_time(2.0)] == [BeginIncarnation]
