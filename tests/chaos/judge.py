"""The judgement of what the witnesses said. Pure: sightings and the API's word in, contradictions for a person out.

*One copy.* Of two copies of one microVM the earlier one made its last progress before the later one made its first.
This is asked of whole lives, not of moments: a copy that was halted for a minute and went on after another had begun
is found out although the two were never seen at once. It is more than the fence promises, which is that the earlier
copy's end was certain when the later one was started.

*Coming back.* Who has to be back by a deadline made progress between the moment from which it counts and the deadline.

*The end.* Within the last moments exactly the microVMs that the API calls running made progress, one copy of each, on
the host that the API names.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from chaos.history import Copy, Sighting, copies


class Return(NamedTuple):
    """It has to make progress in the time between `after_s` and `by_s`, under none of the nonces `not_as`."""

    uid: str
    after_s: float
    by_s: float
    not_as: frozenset[str] = frozenset()


def second_copies(sightings: Iterable[Sighting]) -> list[str]:
    """Every pair of copies of one microVM whose progress overlaps."""
    found: list[str] = []
    for uid, lives in copies(sightings).items():
        latest: Copy | None = None
        for earlier, later in pairwise(lives):
            # Not only neighbours: an early copy may outlive several later ones.
            latest = earlier if latest is None or earlier.last_s > latest.last_s else latest
            if latest.last_s >= later.first_s:
                over_s = latest.last_s - later.first_s
                found.append(f"{uid} had two copies: {latest} made progress {over_s:.2f} s into the life of {later}")
    return found


def not_back(sightings: Sequence[Sighting], expected: Iterable[Return]) -> list[str]:
    """Who did not make progress in the time it had to."""
    found: list[str] = []
    for each in expected:
        seen = [
            sighting.at_s
            for sighting in sightings
            if sighting.uid == each.uid and sighting.nonce not in each.not_as and sighting.at_s > each.after_s
        ]
        if not seen:
            found.append(f"{each.uid} never came back after {each.after_s:.2f} s")
        elif min(seen) > each.by_s:
            found.append(f"{each.uid} came back at {min(seen):.2f} s, which is later than {each.by_s:.2f} s")
    return found


def wrong_end(sightings: Iterable[Sighting], since_s: float, running: Mapping[str, str]) -> list[str]:
    """How what made progress after `since_s` differs from `running`: uid to host, as the API tells."""
    seen = copies(each for each in sightings if each.at_s > since_s)
    found: list[str] = []
    for uid in sorted(seen.keys() | running.keys()):
        lives, host = seen.get(uid, []), running.get(uid)
        if host is None:
            found.append(f"{uid} runs as {', '.join(map(str, lives))}, and the API does not say so")
        elif not lives:
            found.append(f"{uid} should run on {host}, and nothing was heard of it")
        elif len(lives) > 1:
            found.append(f"{uid} runs {len(lives)} times: {', '.join(map(str, lives))}")
        elif lives[0].host not in (None, host):
            found.append(f"{uid} should run on {host}, and runs as {lives[0]}")
    return found
