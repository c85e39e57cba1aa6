"""Sequences of actions that lead somewhere chance alone seldom goes. A schedule may contain one, amid its
other faults.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from simulation.raft.actions import Action, Heal, HealCuts, HealLink, Partition, Propose, Restart, Transfer, Wait

Pattern = Callable[[random.Random], list[Action]]


def old_answers(chance: random.Random) -> list[Action]:
    """A follower's acknowledgements of entries that are replaced later reach their leader when it leads again, and has
    other entries at those indexes."""
    leader, follower = chance.sample(range(5), 2)
    return [
        Heal(after_s=0.0),
        Restart(after_s=0.0),
        Transfer(after_s=1.5, target=leader),
        Partition(after_s=0.5, kind="pair", who=leader, other=follower, hold=False),
        Partition(after_s=0.0, kind="link", who=leader, other=follower, hold=True),
        Propose(after_s=0.001, who=leader, count=15, size=0),
        Wait(after_s=chance.uniform(1.5, 3.0)),
        HealCuts(after_s=0.0),
        Propose(after_s=0.3, who=-1, count=1, size=0),
        Transfer(after_s=0.2, target=leader),
        Partition(after_s=0.3, kind="link", who=follower, other=leader, hold=True),
        Propose(after_s=0.001, who=leader, count=15, size=0),
        HealLink(after_s=chance.choice((0.0, 0.001, 0.01)), source=follower, target=leader),
        Wait(after_s=0.05),
        Heal(after_s=0.0),
    ]


PATTERNS: tuple[Pattern, ...] = (old_answers,)
