"""Handing leadership over (Ongaro's thesis, 3.10), so that a planned stop costs no election timeout.

The leader takes no more proposals, brings the chosen voter's log level with its own, waits until everything is applied
and answered, and tells it to stand for election at once. The voters know by a flag in the question that the leader
itself wants it, and do not stick to the leader that they hear. Proposals that come meanwhile are certainly not
appended. If the other one does not win within an election timeout, this leader goes on as if nothing had been asked.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.consensus import engine
from controlplane.consensus.engine import EngineNode, monotonic_s
from controlplane.consensus.installing import Installer
from controlplane.consensus.messages import TimeoutNow

_log = logging.getLogger(__name__)

HandoverCallback = Callable[[str], None]
"""Gets "" once this node does not lead any more, else why it still does or never did."""


@dataclass(slots=True)
class Handover:
    """One attempt, at most `deadline_s` on the engine's clock."""

    target: EngineNode
    deadline_s: float
    callback: HandoverCallback
    told: bool = False


class Successor(Installer):
    """A member that can make another one lead, and be made to."""

    _handover: Handover | None = None

    @property
    def handing_over(self) -> bool:
        """Whether this leader takes nothing new, because another one is to lead."""
        return self._handover is not None

    def transfer(self, target: str | None, callback: HandoverCallback) -> None:
        """Make `target` lead, or the most up-to-date voter that answers. Bounded by the longest election timeout."""
        refusal, node = self._successor(target)
        if node is None:
            callback(refusal)
            return
        _log.info("%s: handing the leadership of term %d to %s", self._settings.node, self.term, node.id)
        self._handover = Handover(node, monotonic_s() + self._settings.election_max_s, callback)
        self._hooks.wake()

    def _successor(self, target: str | None) -> tuple[str, EngineNode | None]:
        """("", the voter that is to lead) or (why there is none, None)."""
        if not self.is_leader:
            return "this node does not lead", None
        if self._handover is not None:
            return f"the leadership is being handed to {self._handover.target.id} already", None
        voters = {node.id: node for node in self._SyncObj__otherNodes}
        if target is not None and target not in voters:
            return f"{target} is not another voter of this cluster (those are {_listed(voters)})", None
        answered_after = monotonic_s() - self._settings.election_min_s
        ready = [
            node
            for name, node in sorted(voters.items())
            if target in (None, name)
            and node in self._SyncObj__connectedNodes
            and self._SyncObj__lastResponseTime[node] > answered_after
            and not self._agreement.outvoted(name)
        ]
        if not ready:
            return f"{target or 'every other voter'} is out of reach now, and only one that answers can lead", None
        return "", max(ready, key=lambda node: self._SyncObj__raftMatchIndex[node])

    def _drive_handover(self) -> None:
        """Tell the successor once its log holds everything; give up at the deadline."""
        handover = self._handover
        if handover is None:
            return
        target, last = handover.target, self._journal.last_index
        match_index = self._SyncObj__raftMatchIndex.get(target, 0)
        if monotonic_s() > handover.deadline_s:
            behind = f"it holds {match_index} of {last} entries" if match_index < last else "it was not elected"
            self._end_handover(f"{target.id} did not take over within {self._settings.election_max_s} s: {behind}")
        elif not handover.told and match_index == last and self.applied_index == last:
            handover.told = self._outlet.send(target.id, TimeoutNow(self.term))

    def _end_handover(self, outcome: str) -> None:
        handover, self._handover = self._handover, None
        if handover is not None:
            if outcome:
                _log.warning("%s: goes on leading: %s", self._settings.node, outcome)
            handover.callback(outcome)

    def _state_changed(self, old: int, new: int) -> None:
        super()._state_changed(old, new)
        if old == engine.LEADER:
            self._end_handover("")

    def _on_timeout_now(self, node: EngineNode, message: TimeoutNow) -> None:
        if message.term != self.term or self.leader != node.id or self.is_leader or self._agreement.suspect:
            return
        _log.info("%s: %s hands over the leadership", self._settings.node, node.id)
        self._handed_over_in = message.term
        self.campaign()


def _listed(names: dict[str, EngineNode]) -> str:
    return ", ".join(sorted(names)) or "none"
