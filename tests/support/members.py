"""The membership port over the real rules of a configuration, without a log: what is asked for happens at once."""

from __future__ import annotations

from controlplane.consensus import configuration
from controlplane.ports import Member, NoLeaderError, RefusedError


class Members:
    """Implements `ports.LogAdmin`. Starts as n1 alone."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.configuration = configuration.founding("n1", "127.0.0.1:7101", {})
        self.leader = "n1"
        self.leaderless = False
        self.slow = 0
        """So many of the next promotions find the learner not caught up."""

    async def add_member(self, member: Member, *, timeout_s: float) -> None:
        self._require_leader()
        self.configuration = configuration.with_member(self.configuration, member)
        if member.role == "voter":
            await self.promote_member(member.node, timeout_s=timeout_s)

    async def promote_member(self, node: str, *, timeout_s: float) -> None:
        self._require_leader()
        promoted = configuration.promoted(self.configuration, node)
        if self.slow:
            self.slow -= 1
            raise RefusedError(f"{node} has 10 of 100 entries after {timeout_s:g} s; it stays a learner")
        self.configuration = promoted

    async def remove_member(self, node: str, *, timeout_s: float) -> None:
        self._require_leader()
        self.configuration = configuration.removed(self.configuration, node)

    async def transfer_leadership(self, target: str | None, *, timeout_s: float) -> str:
        self._require_leader()
        voters = sorted(self.configuration.voters)
        chosen = target or next((node for node in voters if node != self.leader), self.leader)
        if chosen not in voters:
            raise RefusedError(f"{chosen} is not a voter; the voters are {', '.join(voters)}")
        self.leader = chosen
        return chosen

    def _require_leader(self) -> None:
        if self.leaderless:
            raise NoLeaderError("no leader in time; nothing was changed")
