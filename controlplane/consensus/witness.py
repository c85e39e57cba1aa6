"""State hashes on their way between members, and what follows from them.

Once a second a member whose state moved tells its peers its newest hashes; `agreement` judges. A member that diverged
raises DivergedError, which stops it and is remembered in its data directory.
"""

from __future__ import annotations

from controlplane.consensus.agreement import STEP
from controlplane.consensus.engine import EngineNode, monotonic_s
from controlplane.consensus.errors import DivergedError
from controlplane.consensus.handover import Successor
from controlplane.consensus.messages import StateHash
from controlplane.machine.draft import DIGEST_FORMAT

PERIOD_S = 1.0


class Witness(Successor):
    """A member that compares its state with the others'."""

    _tell_due_s = 0.0
    _told_index = 0

    def _note_hash(self, *, round_ended: bool) -> None:
        """After an entry was applied: note the hash where others note theirs too."""
        index = self.applied_index
        if round_ended or index % STEP == 0:
            self._agreement.note(index, self._state.digest())

    def _tell_hashes(self) -> None:
        """From every tick: once a second, tell what is new and judge what was noted."""
        now = monotonic_s()
        if now < self._tell_due_s:
            return
        self._tell_due_s = now + PERIOD_S
        points = self._agreement.newest()
        if points and points[-1][0] > self._told_index:
            self._told_index = points[-1][0]
            self._tell(points)
        self._judge()

    def _tell(self, points: list[tuple[int, str]]) -> None:
        for node in self._SyncObj__connectedNodes:
            self._send(node, StateHash(DIGEST_FORMAT, points))

    def _tell_hashes_to(self, node: EngineNode) -> None:
        """`node` was just connected, and missed what was told before."""
        if points := self._agreement.newest():
            self._send(node, StateHash(DIGEST_FORMAT, points))

    def _on_state_hash(self, node: EngineNode, message: StateHash) -> None:
        if message.format == DIGEST_FORMAT:
            self._agreement.hear(node.id, message.points)
            self._judge()

    def _judge(self) -> None:
        verdict = self._agreement.judge(voters=self._voters, leader=self.leader, now_s=monotonic_s())
        if verdict is not None:
            self._tell([verdict.evidence])
            raise DivergedError(f"this node's state has diverged: {verdict.reason}")
