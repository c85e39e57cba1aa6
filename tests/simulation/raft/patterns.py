"""Sequences of actions that lead somewhere chance alone seldom goes. A schedule may contain one, amid its
other faults.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from simulation.raft.actions import (
    Action,
    AddMember,
    ChangeWeather,
    Crash,
    CrashInDisk,
    Heal,
    HealCuts,
    HealLink,
    Partition,
    PromoteMember,
    Propose,
    RemoveMember,
    Reset,
    Restart,
    Snapshot,
    Transfer,
    Wait,
)

Pattern = Callable[[random.Random], list[Action]]


CALM = ChangeWeather(after_s=0.0, loss=0.0, duplicate=0.0, reorder=0.0, delay_s=(0.0002, 0.002))


def old_answers(chance: random.Random) -> list[Action]:
    """A follower's acknowledgements of entries that are replaced later reach their leader when it leads again, and has
    other entries at those indexes."""
    leader, follower, *others = chance.sample(range(5), 5)
    return [
        CALM,
        Heal(after_s=0.0),
        Restart(after_s=0.0),
        Transfer(after_s=4.0, target=leader),
        Partition(after_s=0.5, kind="pair", who=leader, other=follower, hold=False),
        Partition(after_s=0.0, kind="link", who=leader, other=follower, hold=True),
        Propose(after_s=0.001, who=leader, count=15, size=0),
        Wait(after_s=4.5),
        HealCuts(after_s=0.0),
        Propose(after_s=0.5, who=-1, count=1, size=0),
        Transfer(after_s=0.5, target=leader),
        *(
            Partition(after_s=0.1, kind="link", who=who, other=leader, hold=True)
            for who in (follower, *others[: chance.choice((1, 2))])
        ),
        Propose(after_s=0.001, who=leader, count=20, size=0),
        HealLink(after_s=chance.choice((0.0, 0.001, 0.01)), source=follower, target=leader),
        Wait(after_s=0.2),
        Heal(after_s=0.0),
    ]


def two_removals(chance: random.Random) -> list[Action]:
    """A leader that is cut off is asked to remove the others one after the other, while those elect another one."""
    leader, *others = chance.sample(range(3), 3)
    return [
        Heal(after_s=0.0),
        Restart(after_s=0.0),
        Transfer(after_s=1.5, target=leader),
        Propose(after_s=0.3, who=leader, count=1, size=0),
        Partition(after_s=0.2, kind="isolated", who=leader, other=leader, hold=chance.random() < 0.5),
        *(RemoveMember(after_s=0.01, who=other) for other in others),
        Propose(after_s=0.01, who=leader, count=3, size=0),
        Wait(after_s=chance.uniform(1.5, 3.0)),
        Propose(after_s=0.0, who=-1, count=3, size=0),
        Wait(after_s=0.5),
        Heal(after_s=0.0),
    ]


def grow_and_shrink(chance: random.Random) -> list[Action]:
    """Members come and go one after the other, until little of the first cluster is left."""
    actions: list[Action] = [Heal(after_s=0.0), Restart(after_s=0.0), Wait(after_s=1.5)]
    for _ in range(3):
        actions += [
            AddMember(after_s=0.1),
            PromoteMember(after_s=chance.choice((0.05, 0.5)), which=chance.randrange(60)),
            RemoveMember(after_s=chance.choice((0.01, 0.3)), who=chance.randrange(60)),
            Propose(after_s=0.01, who=-1, count=2, size=0),
        ]
    return actions


def racing_snapshots(chance: random.Random) -> list[Action]:
    """Snapshots and the entries they hold overtake each other on the way to followers that lose power."""
    actions: list[Action] = [
        Heal(after_s=0.0),
        Restart(after_s=0.0),
        Wait(after_s=1.5),
        ChangeWeather(after_s=0.0, loss=0.05, duplicate=0.3, reorder=0.7, delay_s=(0.0002, 0.05)),
    ]
    for _ in range(25):
        actions += [
            Propose(after_s=chance.uniform(0.001, 0.06), who=-1, count=6, size=0),
            Restart(after_s=0.0),
            chance.choice(
                (
                    Crash(after_s=chance.uniform(0.0, 0.03), who=chance.randrange(60), power=True, back=True),
                    CrashInDisk(after_s=chance.uniform(0.0, 0.03), who=chance.randrange(60), operations=1),
                    CrashInDisk(after_s=chance.uniform(0.0, 0.03), who=chance.randrange(60), operations=1),
                    Reset(after_s=0.001, source=-1, target=chance.randrange(60)),
                    Snapshot(after_s=0.001, who=chance.randrange(60)),
                )
            ),
        ]
    return actions


PATTERNS: tuple[tuple[Pattern, dict[str, object]], ...] = (
    (old_answers, {"members": 5}),
    (two_removals, {"members": 3}),
    (grow_and_shrink, {"members": 3}),
    (racing_snapshots, {"members": 3, "snapshot_entries": 4, "retain_entries": 0, "turn_s": (0.0001, 0.01)}),
)
"""With what each needs of the profile."""
