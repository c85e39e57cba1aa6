"""Which node to dial next, and after how long. Pure but for the random numbers it is given.

Nodes take turns in an order that each agent shuffles for itself. The wait before an attempt is drawn from zero up to a
bound that doubles with every failure in a row (full jitter), so that a thousand agents that lost one node do not arrive
at the next one together.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoint:
    node: str
    address: str


class Rotation:
    def __init__(self, configured: Mapping[str, str], *, base_s: float, cap_s: float, rng: random.Random) -> None:
        self._configured = dict(configured)
        self._base_s = base_s
        self._cap_s = cap_s
        self._rng = rng
        self._failures = 0
        self._last: str | None = None
        self._endpoints: dict[str, Endpoint] = {}
        self._order: list[str] = []
        self.learn({})

    def learn(self, advertised: Mapping[str, str]) -> None:
        """Nodes that a node told of, besides the configured ones; what is configured under a name wins."""
        endpoints = {**advertised, **self._configured}
        kept = [node for node in self._order if node in endpoints]
        fresh = [node for node in endpoints if node not in kept]
        self._rng.shuffle(fresh)
        self._order = kept + fresh
        self._endpoints = {node: Endpoint(node, endpoints[node]) for node in self._order}

    def next(self) -> Endpoint:
        """The node after the one that was tried last."""
        position = self._order.index(self._last) + 1 if self._last in self._order else 0
        self._last = self._order[position % len(self._order)]
        return self._endpoints[self._last]

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self, retry_after_s: float = 0.0) -> float:
        """Seconds to wait before the next attempt; at least what the node asked for."""
        bound_s = min(self._cap_s, self._base_s * 2.0 ** min(self._failures, 30))
        self._failures += 1
        return max(retry_after_s, 0.0) + self._rng.uniform(0.0, bound_s)
