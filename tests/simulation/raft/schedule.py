"""From a seed to a plan: the shape of a cluster and a list of actions. A plan is data, so it can be shortened and kept.

Every seed leaves out some kinds of faults and stresses others, which finds more than a little of everything would.
"""

from __future__ import annotations

import random
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace
from simulation.raft.actions import ALWAYS, VOCABULARY, Action, draw_weather
from simulation.raft.network import Weather
from simulation.raft.patterns import PATTERNS

ACTIONS = 120

if TYPE_CHECKING:
    AnyAction = Action
else:
    # Decoded by the tag that each of them has.
    AnyAction = reduce(or_, VOCABULARY)


class Profile(msgspec.Struct, frozen=True):
    members: int
    heartbeat_s: float
    election_s: tuple[float, float]
    snapshot_entries: int
    retain_entries: int
    segment_bytes: int
    batch_bytes: int
    chunk_bytes: int
    weather: Weather
    sync_s: tuple[float, float]
    turn_s: tuple[float, float]
    snapshot_s: tuple[float, float]


class Plan(msgspec.Struct, frozen=True):
    seed: int
    profile: Profile
    actions: list[AnyAction]


def draw_profile(chance: random.Random) -> Profile:
    return Profile(
        members=chance.choice((1, 2, 3, 3, 3, 3, 4, 5, 5, 5)),
        heartbeat_s=0.12,
        election_s=chance.choice(((0.4, 0.8), (0.5, 1.0), (0.4, 3.0))),
        snapshot_entries=chance.choice((4, 12, 12, 40)),
        retain_entries=chance.choice((0, 2, 10)),
        segment_bytes=chance.choice((1024, 4096, 16 << 20)),
        batch_bytes=chance.choice((1, 30, 1 << 20)),
        chunk_bytes=chance.choice((500, 2000, 1 << 20)),
        weather=draw_weather(chance),
        sync_s=chance.choice(((0.0, 0.0), (0.0, 0.001), (0.0, 0.02))),
        turn_s=chance.choice(((0.00001, 0.0001), (0.0001, 0.01))),
        snapshot_s=chance.choice(((0.0, 0.001), (0.001, 0.3))),
    )


def draw_plan(seed: int) -> Plan:
    chance = random.Random(f"{seed} plan")
    profile = draw_profile(chance)
    kinds = [kind for kind in VOCABULARY if kind in ALWAYS or chance.random() < 0.65]
    intensity = chance.choice((0.15, 0.4, 1.0))
    weights = [kind.weight * (1.0 if kind in ALWAYS else intensity * 3 ** chance.uniform(-1, 1)) for kind in kinds]
    slowest_s = chance.choice((0.02, 0.2, 0.8))
    actions: list[Action] = []
    for kind in chance.choices(kinds, weights, k=ACTIONS):
        actions.append(kind.draw(chance, round(0.001 * (slowest_s / 0.001) ** chance.random(), 6)))
    if chance.random() < 0.35:
        pattern, needs = chance.choice(PATTERNS)
        profile = replace(profile, **needs)
        at = chance.choice((0, chance.randrange(ACTIONS)))
        actions[at:at] = pattern(chance)
    return Plan(seed, profile, actions)


def encode_plan(plan: Plan) -> bytes:
    return msgspec.json.format(msgspec.json.encode(plan), indent=1)


def decode_plan(data: bytes) -> Plan:
    """Raises msgspec.ValidationError naming the field."""
    loaded: Any = msgspec.json.decode(data, type=Plan)
    return loaded
