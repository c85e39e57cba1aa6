"""The network between simulated processes: one connection per direction, with its own generator of chance.

A message's fate depends on the seed, the link and its number on the link, never on what other links carry. Inside a
partition messages are dropped, or held and delivered when it heals, as TCP does when a connection survives it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from controlplane.consensus.messages import Answer, Message, Propose, ReadIndex

_QUEUE_LIMIT = 48
_NOT_DUPLICATED = (Propose, ReadIndex, Answer)
"""A repeated request is a second request; no connection repeats one."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Weather:
    """Chances per message, and the range of delays in seconds, drawn evenly over its logarithm."""

    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    delay_s: tuple[float, float] = (0.0002, 0.002)


@dataclass
class Link:
    chance: random.Random
    free_at_s: float = 0.0
    flying: int = 0
    held: list[Message] = field(default_factory=list)


class Network:
    """`deliver(at_s, source, target, message)` puts a delivery into the event queue."""

    def __init__(self, seed: int, deliver: Callable[[float, str, str, Message], None]) -> None:
        self._seed = seed
        self._deliver = deliver
        self._links: dict[Pair, Link] = {}
        self.weather = Weather()
        self.connected: set[Pair] = set()
        self._dropping: set[Pair] = set()
        self._holding: set[Pair] = set()

    def link(self, source: str, target: str) -> Link:
        pair = source, target
        found = self._links.get(pair)
        if found is None:
            found = self._links[pair] = Link(random.Random(f"{self._seed} {source}>{target}"))
        return found

    def reachable(self, source: str, target: str) -> bool:
        """Whether a connection can be made: it needs both directions."""
        for pair in ((source, target), (target, source)):
            if pair in self._dropping or pair in self._holding:
                return False
        return True

    def writable(self, source: str, target: str) -> bool:
        link = self.link(source, target)
        return link.flying + len(link.held) < _QUEUE_LIMIT

    def send(self, now_s: float, source: str, target: str, message: Message) -> str:
        """What became of it: sent, lost, held, or unconnected."""
        pair = source, target
        if pair not in self.connected:
            return "unconnected"
        link = self.link(source, target)
        if pair in self._holding:
            if len(link.held) >= 2 * _QUEUE_LIMIT:
                return "lost"
            link.held.append(message)
            return "held"
        weather = self.weather
        if pair in self._dropping or link.chance.random() < weather.loss:
            return "lost"
        self._fly(now_s, source, target, message, link)
        if link.chance.random() < weather.duplicate and not isinstance(message, _NOT_DUPLICATED):
            self._fly(now_s, source, target, message, link)
            return "duplicated"
        return "sent"

    def _fly(self, now_s: float, source: str, target: str, message: Message, link: Link) -> None:
        low, high = self.weather.delay_s
        at_s = now_s + low * (high / low) ** link.chance.random()
        if link.chance.random() >= self.weather.reorder:
            at_s = max(at_s, link.free_at_s + 1e-6 * link.chance.random())
            link.free_at_s = at_s
        link.flying += 1
        self._deliver(at_s, source, target, message)

    def landed(self, source: str, target: str) -> None:
        self.link(source, target).flying -= 1

    def partition(self, pairs: Iterable[Pair], *, hold: bool) -> None:
        (self._holding if hold else self._dropping).update(pairs)

    def holds(self, pair: Pair) -> bool:
        return pair in self._holding

    def heal(self, now_s: float, which: Callable[[Pair], bool] = lambda pair: True) -> None:
        """Directions that `which` names work again; what they held arrives in its order."""
        healed = sorted(pair for pair in self._holding if which(pair))
        self._holding.difference_update(healed)
        self._dropping = {pair for pair in self._dropping if not which(pair)}
        for source, target in healed:
            link = self.link(source, target)
            held, link.held = link.held, []
            if (source, target) in self.connected:
                for message in held:
                    self._fly(now_s, source, target, message, link)

    def disconnect(self, source: str, target: str) -> None:
        self.connected.discard((source, target))
        self.link(source, target).held.clear()
