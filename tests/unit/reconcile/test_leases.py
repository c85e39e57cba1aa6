"""Who is granted a lease, and everything that must keep one from being granted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.builders import declare_host
from unit.reconcile.world import World, session

from controlplane.model.commands import BeginIncarnation, Delete, HostDetached, HostSuspected, Report
from controlplane.model.resources import HostPhase
from controlplane.model.types import Kind
from controlplane.ports import Heartbeat, NoLeaderError
from controlplane.settings import LeaseSettings


@pytest.fixture
async def world() -> World:
    """A leader that counts, and a host that is ready."""
    world = World()
    world.add_host()
    await world.tick()
    return world


def detach(world: World, *, number: int = 1) -> None:
    world.accept(HostDetached(host="h1", session=session("h1", number), term=1, reason="silent"))


async def test_a_ready_host_is_granted_the_time_of_the_settings(world: World) -> None:
    asked = [Heartbeat("h1", session("h1"), 7), Heartbeat("h1", "another session", 1), Heartbeat("h9", "s", 1)]
    (grant,) = await world.keeper.grant(asked, timeout_s=1.0)
    assert (grant.host, grant.session, grant.sequence) == ("h1", session("h1"), 7)
    assert (grant.ttl_s, grant.grace_s) == (10.0, 2.0)


@pytest.mark.parametrize(("committed_ms", "granted_s"), [(4_000, 4.0), (10_000, 10.0), (30_000, 10.0)])
async def test_no_lease_is_longer_than_what_its_session_committed(committed_ms: int, granted_s: float) -> None:
    world = World()
    world.add_host(lease_ttl_ms=committed_ms)
    await world.tick()
    assert await world.heartbeat() == granted_s


async def test_a_suspect_host_is_granted(world: World) -> None:
    world.accept(HostSuspected(host="h1", session=session("h1"), reason="silent"))
    assert await world.heartbeat() == 10.0


def _detached(world: World) -> None:
    detach(world)


def _rejoining(world: World) -> None:
    detach(world)
    world.connect()


def _undeclared(world: World) -> None:
    world.accept(Delete(kind=Kind.HOST, name="h1"))
    assert world.host().phase is HostPhase.PENDING


def _other_session(world: World) -> None:
    world.connect(number=2)


def _before_leases(world: World) -> None:
    world.connect(lease_ttl_ms=0)


def _being_detached(world: World) -> None:
    world.ledger.detach("h1", session("h1"))


REFUSED: list[Callable[[World], None]] = [
    _detached,
    _rejoining,
    _undeclared,
    _other_session,
    _before_leases,
    _being_detached,
]


@pytest.mark.parametrize("make_so", REFUSED)
async def test_what_keeps_a_host_from_a_lease(world: World, make_so: Callable[[World], None]) -> None:
    world.time_s += 5
    make_so(world)
    assert await world.heartbeat() is None
    assert world.ledger.ungranted_s("h1", world.time_s) == 5, "what was refused is no grant"


@pytest.mark.parametrize("make_so", REFUSED)
async def test_it_does_so_while_the_proof_is_under_way_too(world: World, make_so: Callable[[World], None]) -> None:
    world.while_confirming = lambda: make_so(world)
    assert await world.heartbeat() is None


async def test_the_time_is_noted_after_the_proof(world: World) -> None:
    def slow() -> None:
        world.time_s += 7

    world.while_confirming = slow
    await world.heartbeat()
    assert world.ledger.ungranted_s("h1", world.time_s) == 0


async def test_nothing_is_granted_in_a_log_whose_incarnation_has_not_begun(world: World) -> None:
    world.incarnation = 2
    assert await world.heartbeat() is None
    world.accept(BeginIncarnation(incarnation=2, term=1))
    assert await world.heartbeat() is None, "it has to tell what is there first"
    world.connect(number=2)
    assert await world.heartbeat(number=2) is None
    world.accept(Report(host="h1", session=session("h1", 2), rejoined=True))
    assert await world.heartbeat(number=2) == 10.0


async def test_nothing_is_granted_without_proof(world: World) -> None:
    world.leads_in = None
    with pytest.raises(NoLeaderError):
        await world.heartbeat()


async def test_nothing_is_granted_in_a_term_that_is_not_counted_yet(world: World) -> None:
    world.leads_in = 2
    with pytest.raises(NoLeaderError, match="term 2, and has not begun to count"):
        await world.heartbeat()
    world.term = 2
    await world.tick()
    assert await world.heartbeat() == 10.0


async def test_a_term_that_begins_to_be_counted_while_the_proof_of_the_last_one_is_under_way(world: World) -> None:
    def elected_anew() -> None:
        world.term = 2
        world.hostwatch.tick()

    world.while_confirming = elected_anew
    with pytest.raises(NoLeaderError):
        await world.heartbeat()


async def test_nothing_is_granted_before_anybody_watches(world: World) -> None:
    world.restart_front()
    with pytest.raises(NoLeaderError):
        await world.heartbeat()


async def test_another_session_of_a_host_that_was_to_be_detached_is_granted(world: World) -> None:
    """That it is committed is proof that the detachment of the one before is refused, or was carried out."""
    world.ledger.detach("h1", session("h1"))
    world.connect(number=2)
    assert await world.heartbeat(number=2) == 10.0
    late = world.apply(HostDetached(host="h1", session=session("h1"), term=1, reason="late"))
    assert world.host().phase is HostPhase.READY, late


async def test_a_rejoined_host_is_granted_again(world: World) -> None:
    world.ledger.detach("h1", session("h1"))
    detach(world)
    world.connect(number=2)
    assert await world.heartbeat(number=2) is None
    world.accept(Report(host="h1", session=session("h1", 2), rejoined=True))
    assert await world.heartbeat(number=2) == 10.0


async def test_a_redeclared_host_is_granted_again(world: World) -> None:
    _undeclared(world)
    world.accept(declare_host("h1"))
    assert await world.heartbeat() == 10.0


async def test_a_shorter_time_of_this_node_counts() -> None:
    world = World(LeaseSettings(ttl_s=5))
    world.add_host()
    await world.tick()
    assert await world.heartbeat() == 5.0
