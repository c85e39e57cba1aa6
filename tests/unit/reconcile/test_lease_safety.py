"""No host is fenced before its lease has ended and it has acted on that, whatever happens to leaders and messages.

The same schedules find each of the ways in which that could be built wrongly.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.builders import confirm_fenced
from unit.reconcile.lease_model import Cluster, Parts, Violation

from controlplane.reconcile.ledger import Ledger
from controlplane.settings import LeaseSettings

SKEW = 0.1
NODES = ("n1", "n2", "n3")
EVENTS = (
    "elect noticed",
    "elect unnoticed",
    "elect unnoticed",
    "notice",
    "restart",
    "stall",
    "go_on",
    "hold_proofs",
    "release_proofs",
    "hold_log",
    "release_log",
    "cut",
    "reconnect",
    "confirm",
    "confirm",
)
Step = tuple[str, str, float]
"""(what happens, to which node, seconds that pass then)."""

steps = st.tuples(
    st.sampled_from(EVENTS), st.sampled_from(NODES), st.sampled_from((0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 12.0, 16.0))
)
schedules = st.lists(steps, min_size=1, max_size=20)
rates = st.sampled_from((1 / (1 + SKEW), 0.95, 1.0, 1.1))
ttls = st.tuples(*[st.sampled_from((10.0, 10.0, 20.0))] * 3)


async def run(schedule: list[Step], rate: float, ttls_s: tuple[float, ...], parts: Parts) -> int:
    """How many looks found the host fenced. Raises Violation."""
    cluster = Cluster(rate=rate, ttls_s=ttls_s, parts=parts)
    try:
        await cluster.pass_time(2.0)
        for what, node, seconds in schedule:
            if what.startswith("elect"):
                cluster.elect(node, noticed=what == "elect noticed")
            else:
                getattr(cluster, what)(node)
            await cluster.pass_time(seconds)
        await cluster.pass_time(20.0)
    finally:
        await cluster.end()
    return cluster.fences


def search(parts: Parts, examples: int) -> int:
    """As `run`, summed over that many schedules, always the same ones."""
    fences = 0

    @settings(
        max_examples=examples,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(schedules, rates, ttls)
    def schedule_by_schedule(schedule: list[Step], rate: float, ttls_s: tuple[float, ...]) -> None:
        nonlocal fences
        fences += asyncio.run(run(schedule, rate, ttls_s, parts))

    with capture_logs():
        schedule_by_schedule()
    return fences


def test_no_host_is_fenced_while_it_may_run() -> None:
    assert search(Parts(), 300) > 300, "hosts must be fenced now and then, or this proves nothing"


class AtOnce(LeaseSettings):
    """Fenced as soon as it is detached."""

    def fenced_after_s(self, ttl_s: float) -> float:
        return 0.0


class PerfectClocks(LeaseSettings):
    """Waits as if every clock ran alike."""

    def fenced_after_s(self, ttl_s: float) -> float:
        return ttl_s + self.fence_s


class OwnLeases(LeaseSettings):
    """Waits for the leases that this node would grant, whatever others granted."""

    def ended_after_s(self, ttl_s: float) -> float:
        return super().ended_after_s(self.ttl_s)

    def fenced_after_s(self, ttl_s: float) -> float:
        return super().fenced_after_s(self.ttl_s)


class Confident(Ledger):
    """Takes what it does not know of for what did not happen."""

    def begin(self, term: int | None, now_s: float) -> None:
        super().begin(term, now_s)
        self.since_s = -1e9


BROKEN: dict[str, Callable[[], Parts]] = {
    "no wait for the fence": partial(Parts, lease=AtOnce),
    "no proof by a quorum": partial(Parts, proof=False),
    "no allowance for slow clocks": partial(Parts, lease=PerfectClocks),
    "no regard for longer leases of others": partial(Parts, lease=OwnLeases),
    "no new wait of a new leader": partial(Parts, ledger=Confident),
    "no wait after an operator's word": partial(Parts, word=confirm_fenced),
}


@pytest.mark.parametrize("how", BROKEN)
def test_the_schedules_find_a_broken_build(how: str) -> None:
    with pytest.raises(Violation):
        search(BROKEN[how](), 1500)
