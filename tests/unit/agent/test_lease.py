"""The lease: it ends when the leader reckons with it at the latest, and counts for a driver that has taken it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.agent.held import LONGEST_S, NOTHING, Held, HeldFile
from controlplane.agent.lease import NO_LEASE, REMEMBERED, TRUST_S, Book, HostLease, Standing
from controlplane.agent.patience import CALM, FIRST, JITTER, LIMIT, TELLING, Patience
from controlplane.ports import DriverError, DriverInfo, HostDriver, Lease
from controlplane.system import SystemClock

WAIT_S = 10.0

# -- the arithmetic


def test_it_ends_a_time_to_live_after_the_heartbeat_was_sent() -> None:
    book = Book(NOTHING)
    book.begin("s")
    book.sent("s", 7, 100.0)
    assert book.granted("s", 7, ttl_s=10.0, grace_s=2.0)
    assert book.best is not None
    assert (book.best.ends_s, book.best.half_s, book.best.grace_s) == (110.0, 105.0, 2.0)
    assert book.held == Held(ends_s=110.0, ttl_s=10.0)


@pytest.mark.parametrize(
    ("session", "sequence", "ttl_s", "grace_s"),
    [
        ("s", 2, 10.0, 2.0),
        ("earlier", 1, 10.0, 2.0),
        ("s", 1, 0.0, 2.0),
        ("s", 1, LONGEST_S + 1, 2.0),
        ("s", 1, 10.0, LONGEST_S + 1),
    ],
)
def test_what_answers_no_heartbeat_of_ours_or_makes_no_sense_is_no_grant(
    session: str, sequence: int, ttl_s: float, grace_s: float
) -> None:
    book = Book(NOTHING)
    book.begin("s")
    book.sent("s", 1, 100.0)
    assert not book.granted(session, sequence, ttl_s=ttl_s, grace_s=grace_s)
    assert book.best is None
    assert book.held == NOTHING


def test_heartbeats_of_an_earlier_session_and_very_old_ones_are_forgotten() -> None:
    book = Book(NOTHING)
    book.begin("first")
    book.sent("first", 1, 100.0)
    book.begin("second")
    assert not book.granted("first", 1, ttl_s=10.0, grace_s=2.0)
    assert not book.granted("second", 1, ttl_s=10.0, grace_s=2.0)
    for sequence in range(1, REMEMBERED + 2):
        book.sent("second", sequence, 100.0 + sequence)
    assert not book.granted("second", 1, ttl_s=10.0, grace_s=2.0)
    assert book.granted("second", 2, ttl_s=10.0, grace_s=2.0)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 30), st.sampled_from([1.0, 10.0, 60.0]), st.booleans()),
        max_size=40,
    )
)
def test_whatever_arrives_in_whatever_order_the_end_is_that_of_some_grant_and_never_goes_back(
    events: list[tuple[int, int, float, bool]],
) -> None:
    """(session, sequence, ttl, whether it is a new session)"""
    book, sent, now_s, allowed, last = Book(NOTHING), dict[tuple[str, int], float](), 0.0, [0.0], 0.0
    current = ""
    for session, sequence, ttl_s, begins in events:
        now_s += 0.5
        name = f"s{session}"
        if begins:
            current = f"{name}-{now_s}"
            book.begin(current)
        book.sent(current, sequence, now_s)
        sent[current, sequence] = min(sent.get((current, sequence), now_s), now_s)
        if book.granted(current, sequence, ttl_s=ttl_s, grace_s=1.0):
            allowed.append(sent[current, sequence] + ttl_s)
        ends_s = book.best.ends_s if book.best is not None else 0.0
        assert last <= ends_s <= max(allowed)
        assert book.held.ends_s == ends_s
        last = ends_s


def test_what_is_held_is_the_lease_that_ends_last() -> None:
    book = Book(Held(ends_s=160.0, ttl_s=60.0))
    book.begin("s")
    book.sent("s", 1, 120.0)
    assert book.granted("s", 1, ttl_s=10.0, grace_s=2.0)
    assert book.best is not None
    assert book.best.ends_s == 130.0, "the lease of an earlier life is not ours to run under"
    assert book.held_ttl_s(159.0) == 60.0
    assert book.held_ttl_s(160.0) == 0.0
    book.sent("s", 2, 155.0)
    assert book.granted("s", 2, ttl_s=10.0, grace_s=2.0)
    assert book.held_ttl_s(159.0) == 10.0


# -- what a restarted agent tells


def test_what_was_held_is_read_again_and_other_boots_do_not_count(tmp_path: Path) -> None:
    file = HeldFile(tmp_path, "boot-1")
    assert file.read(100.0) == NOTHING
    file.write(Held(ends_s=110.0, ttl_s=10.0))
    assert HeldFile(tmp_path, "boot-1").read(100.0) == Held(ends_s=110.0, ttl_s=10.0)
    later = HeldFile(tmp_path, "boot-2")
    assert later.read(5.0) == NOTHING
    later.write(Held(ends_s=20.0, ttl_s=10.0))
    later.remove_others()
    assert [path.name for path in tmp_path.iterdir()] == ["lease-boot-2.json"]


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'{"ends_s": 1}', b'{"ends_s": 1e12, "ttl_s": 10}', b'{"ends_s": 110, "ttl_s": 1e9}', b"\xff"],
)
def test_what_cannot_be_read_counts_as_the_longest_there_is(tmp_path: Path, data: bytes) -> None:
    file = HeldFile(tmp_path, "boot-1")
    (tmp_path / "lease-boot-1.json").write_bytes(data)
    assert file.read(100.0) == Held(ends_s=100.0 + LONGEST_S, ttl_s=LONGEST_S)


# -- the edge


class Clock(SystemClock):
    now_s = 1000.0

    def boottime_s(self) -> float:
        return self.now_s


class Driver:
    """Takes leases, late or not at all."""

    def __init__(self) -> None:
        self.info = DriverInfo(name="x", version="1", simulated=True, accelerator=None, fences=True)
        self.taken: list[Lease] = []
        self.fails: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()

    async def renew(self, lease: Lease) -> None:
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        self.taken.append(lease)

    async def held(self) -> Lease | None:
        """As a watchdog that outlives the agent."""
        await self.gate.wait()
        if self.fails is not None:
            raise self.fails
        return self.taken[-1] if self.taken else None


class Host:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.clock = Clock()
        self.drivers = {"one": Driver(), "two": Driver()}
        self.changes = 0
        self.file = HeldFile(directory, "boot-1")
        self.lease = self.agent()
        self.sequence = 0

    def agent(self) -> HostLease:
        def changed() -> None:
            self.changes += 1

        lease = HostLease(
            drivers=cast(dict[str, HostDriver], self.drivers),
            file=self.file,
            clock=self.clock,
            on_change=changed,
            renew_timeout_s=0.1,
        )
        lease.begin("s")
        return lease

    def heartbeat(self, *, ttl_s: float = 10.0) -> None:
        """Sent and granted at once."""
        self.sequence += 1
        self.lease.sending("s", self.sequence)
        assert self.lease.granted("s", self.sequence, ttl_s=ttl_s, grace_s=2.0)

    def standing(self, driver: str = "one") -> Standing:
        return self.lease.standing(driver)

    async def until(self, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not holds():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.005)


@pytest.fixture
async def host(tmp_path: Path) -> AsyncIterator[Host]:
    host = Host(tmp_path)
    running = asyncio.create_task(host.lease.run())
    yield host
    assert not running.done(), running
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running


async def test_a_grant_counts_for_a_driver_once_that_has_taken_it(host: Host) -> None:
    assert host.standing("one") == NO_LEASE
    host.drivers["two"].gate.clear()
    host.heartbeat()
    await host.until(lambda: host.standing("one").may_run)
    assert host.standing("two") == NO_LEASE
    assert await host.lease.held_ttl_s() == 10.0, "the first driver holds it: a restarted agent must tell"
    assert host.file.read(1000.0) == Held(ends_s=1010.0, ttl_s=10.0)
    host.drivers["two"].gate.set()
    host.clock.now_s += 1
    host.heartbeat()
    await host.until(lambda: host.standing("two").may_run)
    assert host.changes == 2
    assert host.drivers["two"].taken[-1] == Lease(ends_s=1011.0, grace_s=2.0, ttl_s=10.0)


@pytest.mark.parametrize("error", [DriverError("FenceUnavailable", "no watchdog"), ZeroDivisionError("a bug")])
async def test_a_driver_that_fails_has_no_lease_and_the_others_go_on(host: Host, error: Exception) -> None:
    host.heartbeat()
    await host.until(lambda: host.standing("one").may_run and host.standing("two").may_run)
    host.drivers["two"].fails = error
    host.clock.now_s += 3
    host.heartbeat()
    await host.until(lambda: len(host.drivers["one"].taken) == 2)
    assert host.standing("two").may_run, "what counted goes on to its own end"
    assert host.lease.problems() == {}
    host.clock.now_s = 1010
    assert not host.standing("two").may_run, "and no further"
    assert host.standing("one").may_run
    assert list(host.lease.problems()) == ["two"]
    host.drivers["two"].fails = None
    host.heartbeat()
    await host.until(lambda: host.standing("two").may_run)


async def test_a_driver_that_took_no_lease_is_relied_on_again_only_after_a_while(host: Host) -> None:
    host.drivers["two"].fails = DriverError("FenceUnavailable", "no watchdog")
    host.heartbeat()
    await host.until(lambda: host.standing("one").may_run)
    assert host.lease.problems() == {"two": "FenceUnavailable: no watchdog"}
    host.drivers["two"].fails = None
    host.heartbeat()
    await host.until(lambda: host.standing("two").may_run)
    host.clock.now_s += TRUST_S - 1
    assert list(host.lease.problems()) == ["two"], "a node would commit every change of mind"
    host.clock.now_s += 1
    assert host.lease.problems() == {}


async def test_what_is_held_is_what_the_drivers_say_and_not_what_the_agent_remembers(host: Host) -> None:
    host.heartbeat(ttl_s=60.0)
    await host.until(lambda: host.standing("one").may_run and host.standing("two").may_run)
    for file in host.directory.iterdir():
        file.unlink()
    again = host.agent()
    assert await again.held_ttl_s() == 60.0, "the watchdog has not forgotten"
    for driver in host.drivers.values():
        driver.taken.clear()
    host.file.write(Held(ends_s=1060.0, ttl_s=60.0))
    assert await host.agent().held_ttl_s() == 0.0, "nobody lets anything run under it"
    host.drivers["two"].fails = DriverError("FenceUnavailable", "no watchdog")
    unsure = host.agent()
    assert await unsure.held_ttl_s() == 60.0
    assert list(unsure.problems()) == ["two"], "who cannot tell is not relied on"


async def test_what_cannot_be_written_down_does_not_count(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(held: Held) -> None:
        raise OSError(28, "no space left on device")

    tried: list[Any] = []
    monkeypatch.setattr(host.file, "write", lambda held: (tried.append(held), full(held)))
    host.heartbeat()
    await host.until(lambda: bool(tried))
    await asyncio.sleep(0.02)
    assert host.standing() == NO_LEASE
    assert not host.drivers["one"].taken


async def test_it_says_when_half_of_it_has_passed_and_when_it_is_over(host: Host) -> None:
    host.heartbeat()
    await host.until(lambda: host.standing().may_run)
    assert host.standing() == Standing(may_run=True, shut_down=False, changes_in_s=5.0)
    host.clock.now_s += 5
    assert host.standing() == Standing(may_run=True, shut_down=True, changes_in_s=5.0)
    host.heartbeat()
    await host.until(lambda: not host.standing().shut_down)
    await host.until(lambda: host.changes == 4)
    host.clock.now_s += 10
    assert host.standing() == NO_LEASE


async def test_a_restarted_agent_tells_what_is_held_and_runs_nothing_under_it(host: Host) -> None:
    host.heartbeat(ttl_s=60.0)
    await host.until(lambda: host.standing().may_run)
    again = host.agent()
    host.clock.now_s += 59
    assert await again.held_ttl_s() == 60.0
    assert again.standing("one") == NO_LEASE
    host.clock.now_s += 1
    assert await again.held_ttl_s() == 0.0


# -- how long to do without


def test_a_session_that_had_grants_is_left_soon_after_the_last() -> None:
    patience = Patience(2.0)
    patience.begin(100.0, admitted=False)
    assert patience.left_s(1000.0) is None, "a host that nobody declared is owed nothing"
    patience.granted(101.0)
    assert patience.left_s(102.0) == 1.0
    assert patience.left_s(103.0) == 0.0


def test_a_session_without_any_grant_is_left_later() -> None:
    patience = Patience(2.0)
    patience.begin(100.0, admitted=True)
    assert patience.left_s(100.0) == 2.0 * FIRST


def test_it_does_not_go_round_for_ever_when_no_grant_can_be_had() -> None:
    patience, now_s, waits = Patience(2.0), 0.0, list[float]()
    for _ in range(12):
        patience.begin(now_s, admitted=True)
        left_s = patience.left_s(now_s)
        assert left_s is not None
        waits.append(left_s)
        now_s += left_s
        patience.gave_up()
    assert waits[:4] == [10.0, 20.0, 40.0, 80.0]
    assert waits[-1] == 2.0 * FIRST * LIMIT


def test_a_calm_while_makes_it_quick_again_and_grants_now_and_then_do_not() -> None:
    patience = Patience(2.0)
    patience.gave_up()
    patience.begin(0.0, admitted=True)
    for second in range(0, 100, 3):
        patience.granted(float(second))
    assert patience.left_s(99.0) == 4.0
    for second in range(100, 100 + round(CALM * 2.0) + 2):
        patience.granted(float(second))
    assert patience.left_s(float(100 + round(CALM * 2.0) + 1)) == 2.0


def test_while_no_node_has_a_leader_nothing_is_waited_for() -> None:
    patience = Patience(2.0)
    patience.begin(100.0, admitted=True, tells=True)
    patience.granted(101.0)
    assert patience.left_s(101.0) == 2.0 * TELLING, "it takes the node a moment to find out"
    for second in range(102, 130):
        patience.excused(float(second))
        assert patience.left_s(float(second)) == 2.0 * TELLING
    assert patience.left_s(129.0 + 2.0 * TELLING) == 0.0, "there is one again, and nothing came"


def test_what_many_agents_meet_at_once_does_not_end_all_their_sessions_at_once() -> None:
    patience = Patience(2.0)
    waits: list[float | None] = []
    for chance in (0.0, 0.5, 1.0):
        patience.begin(100.0, admitted=True, chance=chance)
        patience.granted(100.0)
        waits.append(patience.left_s(100.0))
    assert waits == [2.0, pytest.approx(2.0 + JITTER), pytest.approx(2.0 + 2 * JITTER)]
