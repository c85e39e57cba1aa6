"""Which members have been out of reach for so long that the leader removes them, if its operator asked for that.

Pure: times and answers come in, a name comes out. Silence counts only while this leader watched: each look adds at
most `MAX_STEP_S`, so a leader that was itself stopped, or a machine that was suspended, does not wake up to a cluster
of dead members. A new leader begins at zero.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.consensus.configuration import Configuration, majority

MAX_STEP_S = 2.0
MIN_VOTERS = 3
"""Fewer than three voters survive no loss at all; the policy never goes below."""


class Silence:
    """How long each other member has been silent, in time that this leader watched."""

    def __init__(self) -> None:
        self._silent_s: dict[str, float] = {}
        self._looked_s: float | None = None

    def look(self, now_s: float, answered: Mapping[str, bool]) -> Mapping[str, float]:
        """Whether each member answered since the last look; gives its silence in seconds."""
        step_s = 0.0 if self._looked_s is None else min(max(now_s - self._looked_s, 0.0), MAX_STEP_S)
        self._looked_s = now_s
        self._silent_s = {
            node: 0.0 if heard else self._silent_s.get(node, 0.0) + step_s for node, heard in answered.items()
        }
        return self._silent_s


def to_remove(
    configuration: Configuration, leader: str, silent_s: Mapping[str, float], *, after_s: float, recent_s: float
) -> str | None:
    """The member to remove now, the longest silent first; None when there is none or it would not be safe.

    `recent_s`: who was silent for less is reachable. What remains must be at least `MIN_VOTERS` voters, a majority of
    them reachable.
    """
    for node in sorted(silent_s, key=lambda name: (-silent_s[name], name)):
        if silent_s[node] < after_s or configuration.find(node) is None or node == leader:
            continue
        remaining = configuration.voters - {node}
        reachable = [each for each in remaining if each == leader or silent_s.get(each, after_s) < recent_s]
        if len(remaining) >= MIN_VOTERS and len(reachable) >= majority(len(remaining)):
            return node
    return None
