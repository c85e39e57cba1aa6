"""However old the state is that a cluster is restored to, no two copies of a microVM run, and no epoch comes twice.

The same schedules find each of the ways in which that could be built wrongly.
"""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from unit.reconcile.restore_model import RestoredCluster, Violation

from controlplane.machine import placing
from controlplane.machine.state import State
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase
from controlplane.settings import LeaseSettings

HOSTS = ("h1", "h2", "h3")
Step = tuple[str, str, float, float]
"""(what happens, to which host, how old a state is restored, seconds that pass then)."""

steps = st.tuples(
    st.sampled_from(("cut", "cut", "heal", "restore")),
    st.sampled_from(HOSTS),
    st.sampled_from((0.1, 0.3, 0.6, 1.0)),
    st.sampled_from((0.5, 2.0, 8.0, 20.0, 20.0)),
)
schedules = st.lists(steps, min_size=2, max_size=10)


async def run(schedule: list[Step], lease: LeaseSettings, *, tells: bool) -> RestoredCluster:
    """Raises Violation."""
    cluster = RestoredCluster(lease, tells=tells)
    await cluster.pass_time(30.0)
    for what, host, share, seconds in schedule:
        if what == "restore":
            cluster.restore(share)
        else:
            getattr(cluster, what)(host)
        await cluster.pass_time(seconds)
    return cluster


def search(lease: LeaseSettings, examples: int, *, tells: bool = False) -> Counter[str]:
    """Those schedules, always the same ones, and what they came to."""
    seen: Counter[str] = Counter()

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules)
    def schedule_by_schedule(schedule: list[Step]) -> None:
        cluster = asyncio.run(run(schedule, lease, tells=tells))
        seen["moved"] += cluster.moved
        seen["refused"] += cluster.refused
        seen["begun"] += len(cluster.world.state.incarnations)

    with capture_logs():
        schedule_by_schedule()
    return seen


def test_no_two_copies_run_whatever_is_restored() -> None:
    seen = search(LeaseSettings(), 300)
    assert min(seen["moved"], seen["begun"]) > 50, "they must move and be restored, or this proves nothing"
    assert seen["refused"] > 50


class AtOnce(LeaseSettings):
    """No lease of the lost history is waited for."""

    def gone_after_s(self, ttl_s: float) -> float:
        return 0.0


class OnlyFenced(LeaseSettings):
    """What was halted at the end of its lease, and is not killed yet, is forgotten."""

    def gone_after_s(self, ttl_s: float) -> float:
        return self.fenced_after_s(ttl_s)


@pytest.mark.parametrize("lease", [AtOnce(), OnlyFenced(grace_s=20)], ids=lambda lease: type(lease).__name__)
def test_the_schedules_find_a_wait_that_is_too_short(lease: LeaseSettings) -> None:
    with pytest.raises(Violation, match="runs on"):
        search(lease, 1500)


def test_the_schedules_find_hosts_that_are_told_too_early() -> None:
    with pytest.raises(Violation, match="runs on"):
        search(LeaseSettings(), 1500, tells=True)


def test_a_long_grace_is_waited_for() -> None:
    search(LeaseSettings(grace_s=20), 60)


def _never(_state: State, _vm: MicroVM) -> str | None:
    return None


def test_the_schedules_find_placements_before_hosts_have_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(placing, "withheld", _never)
    with pytest.raises(Violation, match="runs on"):
        search(LeaseSettings(), 1500)


async def test_hosts_that_run_on_are_back_and_what_ran_runs_again() -> None:
    cluster = RestoredCluster()
    await cluster.pass_time(30.0)
    with capture_logs():
        cluster.restore(0.1)
        await cluster.pass_time(25.0)
    state = cluster.world.state
    assert state.incarnation == 2
    assert {host.phase for host in state.hosts.values()} == {HostPhase.READY}
    assert {vm.epoch for vm in state.microvms.values()} == {1}, "nothing was given up"
    assert {vm.phase for vm in state.microvms.values()} == {MicroVMPhase.PLACED}
    running = [host.name for host in cluster.hosts.values() for uid in host.copies if host.runs(uid, cluster.own_s)]
    assert len(running) == 2
