"""Builds of the product with one known fault each, to show that the checker bites: a rule is left out, as if its line
had been removed. Nothing of this is in the shipped code.

Each names the troubles that it is to be found by; the real product goes through the same ones unharmed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controlplane.agent import plan, runner
from controlplane.agent.plan import Plan
from controlplane.agent.steps import Destroy
from controlplane.machine import incarnations, lost_hosts
from controlplane.ports import NoLeaderError, Reign
from controlplane.replica import Replica
from controlplane.settings import LeaseSettings


@dataclass(frozen=True)
class Build:
    name: str = "ours"
    leave_out: Callable[[], None] | None = None
    """Called before anything runs, in a process of its own."""
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    """How often each trouble is drawn; none: as the seed has it."""

    def made_whole(self) -> Build:
        """The real product in the same troubles."""
        return replace(self, leave_out=None)


def _fence_wait() -> None:
    """A host is given up as soon as it is detached."""
    LeaseSettings.fenced_after_s = lambda self, ttl_s: 0.0
    LeaseSettings.ended_after_s = lambda self, ttl_s: self.suspect_s


def _epoch_check() -> None:
    """An agent does to a newer copy what it was told about an older one."""
    plan._newer_than = lambda assignment, record, copies: None


def _tombstone_rule() -> None:
    """An agent destroys what it is not assigned."""
    ours = runner.plan

    def planned(assignments: Any, records: Any, listing: Any, **settings: Any) -> Plan:
        made = ours(assignments, records, listing, **settings)
        begun = {uid: record for uid, record in records.items() if uid not in assignments.by_uid}
        for found in made.unmanaged:
            uid = found.instance.uid
            if uid is not None and uid in begun:
                made.steps[uid] = Destroy(uid, found.driver, "not assigned", begun[uid].epoch, before=begun[uid])  # pyright: ignore[reportIndexIssue]
        return made

    runner.plan = planned


def _quorum_round() -> None:
    """A node grants leases because it believes that it leads."""

    async def believe(self: Replica, *, timeout_s: float) -> Reign:
        if self.reign is None:
            raise NoLeaderError("this node does not lead")
        return self.reign

    Replica.confirm_leading = believe


def _term_check() -> None:
    """What the leader of another term said still counts."""
    lost_hosts.other_term = incarnations.other_term = lambda decided, term: None


BROKEN: dict[str, Build] = {
    build.name: build
    for build in (
        Build("no fence wait", _fence_wait, {"host_cut_off": 4, "agent_frozen": 2}),
        Build("no epoch check", _epoch_check, {"restore_older": 2, "host_lost_power": 3, "host_cut_off": 3}),
        Build("no tombstone rule", _tombstone_rule, {"restore_older": 2, "user_works": 4}),
        Build("no quorum round before a grant", _quorum_round, {"leader_deposed_unaware": 1}),
        Build(
            "no term check on late commands", _term_check, {"leader_cut_off": 4, "host_cut_off": 4, "node_stopped": 4}
        ),
    )
}
