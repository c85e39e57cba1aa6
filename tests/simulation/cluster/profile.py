"""The shape of a simulated cluster, and how hard its life is."""

from __future__ import annotations

import random

import msgspec
from simulation.cluster.faults import FAULTS


class Profile(msgspec.Struct, frozen=True):
    """The shape of a cluster, and how hard its life is."""

    nodes: int = 3
    hosts: int = 4
    microvms: int = 10
    heartbeat_s: float = 0.25
    election_s: float = 1.0
    snapshot_entries: int = 200
    retain_entries: int = 50
    fence_s: float = 3.0
    pace_s: float = 20.0
    """Between two faults, on average."""
    moving: float = 0.5
    """How many of the microVMs are restarted elsewhere and paused at first, as a share."""
    weights: dict[str, float] = {}
    """How often each fault is drawn."""


def draw_profile(seed: int) -> Profile:
    """Every seed leaves out some faults and stresses others. Its shape does not depend on which faults there are."""
    weighing, chance = random.Random(f"{seed} weights"), random.Random(f"{seed} shape")
    fast = chance.random() < 0.25
    weights = {
        fault.__name__: weight * 3 ** weighing.uniform(-1, 1)
        for fault, weight in FAULTS.items()
        if fault.__name__ == "user_works" or weighing.random() < 0.75
    }
    return Profile(
        heartbeat_s=0.1 if fast else 0.3,
        election_s=0.5 if fast else 1.0,
        microvms=chance.choice((6, 10, 10, 14)),
        snapshot_entries=chance.choice((50, 200, 1000)),
        retain_entries=chance.choice((0, 20, 100)),
        fence_s=chance.choice((1.0, 3.0)),
        pace_s=chance.choice((8.0, 15.0, 30.0)),
        moving=chance.choice((0.2, 0.6)),
        weights=weights,
    )
