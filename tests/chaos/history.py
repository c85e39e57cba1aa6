"""What the witnesses said: each guest tells its microVM's uid, a nonce of its boot, and a counter that goes up.

A *copy* is one boot of one guest: everything said under one nonce. It was certainly running when it counted further,
and nothing is known of it before its first and after its last count. All times are seconds of one monotonic clock, the
recorder's. One count is usually seen twice, over the network and in the host's console file; the earlier of the two is
nearer to the moment when it was made.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple


class Sighting(NamedTuple):
    uid: str
    nonce: str
    count: int
    at_s: float
    host: str | None
    """Whose console it was read from; None for one that came over the network, which does not tell."""


@dataclass(frozen=True)
class Copy:
    uid: str
    nonce: str
    first_s: float
    last_s: float
    """When it made progress for the first and the last time, as far as was seen."""
    counts: int
    host: str | None
    """None while its console was not seen."""

    def __str__(self) -> str:
        return f"{self.nonce[:8]} on {self.host or 'an unknown host'} ({self.first_s:.2f} to {self.last_s:.2f} s)"


def copies(sightings: Iterable[Sighting]) -> dict[str, list[Copy]]:
    """The copies of each uid, in the order in which they were first seen."""
    counted: dict[tuple[str, str], dict[int, float]] = {}
    hosts: dict[tuple[str, str], str] = {}
    for each in sightings:
        boot = each.uid, each.nonce
        times = counted.setdefault(boot, {})
        times[each.count] = min(each.at_s, times.get(each.count, each.at_s))
        if each.host is not None:
            hosts[boot] = each.host
    found: dict[str, list[Copy]] = {}
    for (uid, nonce), times in counted.items():
        copy = Copy(uid, nonce, min(times.values()), max(times.values()), len(times), hosts.get((uid, nonce)))
        found.setdefault(uid, []).append(copy)
    return {uid: sorted(each, key=lambda copy: copy.first_s) for uid, each in found.items()}
