"""The network between machines, and the connections over it: what is put in comes out in its order, late, or never.

A cut is of one direction between two machines. A connection survives a short one, as TCP's do: what was sent arrives
when it heals. After `silence_s` without an answer its ends give it up, each when it notices. A process that ends takes
its connections with it, and the other ends hear of that, unless the machine lost its power or is cut off.

Every direction has a generator of its own, so what happens on one never depends on how much others carry.
"""

from __future__ import annotations

import random
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from simulation.cluster.loop import Process, VirtualLoop

Pair = tuple[str, str]
_RETRANSMIT_S = 0.2


@dataclass(frozen=True)
class Weather:
    """Chances per message, and the range of delays in seconds, drawn evenly over its logarithm."""

    loss: float = 0.0
    duplicate: float = 0.0
    delay_s: tuple[float, float] = (0.0002, 0.002)


class Network:
    def __init__(self, loop: VirtualLoop, seed: int, seen: Counter[str]) -> None:
        self.loop = loop
        self.seen = seen
        self.weather = Weather()
        self.trace = 0
        """A checksum over everything that arrived, in order."""
        self._seed = seed
        self._chances: dict[Pair, random.Random] = {}
        self._cuts: Counter[Pair] = Counter()
        self._connections: dict[Connection, None] = {}

    def chance(self, pair: Pair) -> random.Random:
        found = self._chances.get(pair)
        if found is None:
            found = self._chances[pair] = random.Random(f"{self._seed} {pair[0]}>{pair[1]}")
        return found

    def cut(self, pairs: Iterable[Pair]) -> None:
        """Directions that carry nothing until `heal` was called as often."""
        self._cuts.update(pairs)
        for connection in list(self._connections):
            connection.watch_silence()

    def heal(self, pairs: Iterable[Pair]) -> None:
        for pair in pairs:
            self._cuts[pair] -= 1
        for connection in list(self._connections):
            connection.flush()

    def carries(self, source: str, target: str) -> bool:
        return self._cuts[source, target] <= 0

    def reachable(self, one: str, other: str) -> bool:
        """Whether a connection can be made: it needs both directions."""
        return self.carries(one, other) and self.carries(other, one)

    def opened(self, connection: Connection) -> None:
        self._connections[connection] = None

    def closed(self, connection: Connection) -> None:
        self._connections.pop(connection, None)

    def arrived(self, pair: Pair, data: bytes) -> None:
        where = f"{pair[0]}>{pair[1]} {self.loop.now_s!r}".encode()
        self.trace = zlib.crc32(data, zlib.crc32(where, self.trace))

    def process_ended(self, process: Process, *, silently: bool) -> None:
        """`silently`: nobody says so to the other ends, since the machine is gone as well."""
        for connection in list(self._connections):
            connection.process_ended(process, silently=silently)


class Pipe:
    """One direction of a connection."""

    def __init__(self, network: Network, source: Process, target: Process, arrive: Callable[[bytes], None]) -> None:
        self._network = network
        self._source = source
        self._target = target
        self._arrive = arrive
        self.pair = source.machine.name, target.machine.name
        self._chance = network.chance(self.pair)
        self._context = target.context()
        self.free_at_s = 0.0
        self._held: list[bytes] = []
        self.closed = False

    def put(self, data: bytes, *, droppable: bool = False) -> None:
        """`droppable`: it is a whole message of those who repeat what was lost, and ignore what comes twice."""
        network = self._network
        if self.closed or not self._source.alive:
            return
        if not network.carries(*self.pair):
            self._held.append(data)
            network.seen["message held"] += 1
            return
        weather = network.weather
        lost = weather.loss and self._chance.random() < weather.loss
        if lost:
            network.seen["message lost"] += 1
            if droppable:
                return
        self._fly(data, _RETRANSMIT_S if lost else 0.0)
        if droppable and weather.duplicate and self._chance.random() < weather.duplicate:
            network.seen["message duplicated"] += 1
            self._fly(data, 0.0)

    def _fly(self, data: bytes, late_s: float) -> None:
        low, high = self._network.weather.delay_s
        loop = self._network.loop
        at_s = loop.now_s + self._source.spent_s + late_s + low * (high / low) ** self._chance.random()
        self.free_at_s = at_s = max(at_s, self.free_at_s + 1e-7)
        loop.post_at(at_s, self._context, self._landed, data)

    def _landed(self, data: bytes) -> None:
        if not self.closed:
            self._network.arrived(self.pair, data)
            self._arrive(data)

    @property
    def blocked(self) -> bool:
        return not self._network.carries(*self.pair)

    @property
    def length(self) -> int:
        return len(self._held)

    def flush(self) -> None:
        if self._held and not self.blocked:
            held, self._held = self._held, []
            for data in held:
                self._fly(data, 0.0)


class Connection:
    """`taken` and `answered` get what arrives at the server and at the client; `lost` is called at each end, by name
    (`client` or `server`), when the connection has ended there and it was not that end which closed it."""

    def __init__(
        self,
        network: Network,
        client: Process,
        server: Process,
        *,
        taken: Callable[[bytes], None],
        answered: Callable[[bytes], None],
        lost: Callable[[str], None],
        silence_s: float,
    ) -> None:
        self._network = network
        self._lost = lost
        self._silence_s = silence_s
        self.ends = {"client": client, "server": server}
        self.up = Pipe(network, client, server, taken)
        self.down = Pipe(network, server, client, answered)
        self._over: set[str] = set()
        """Ends that know that it is over."""
        network.opened(self)
        self.watch_silence()

    def close(self, by: str) -> None:
        """One end closes it; the other one hears of it when the network lets it."""
        other = "server" if by == "client" else "client"
        self._over.add(by)
        (self.down if by == "client" else self.up).closed = True
        self._tell(other, within_s=0.002)

    def process_ended(self, process: Process, *, silently: bool) -> None:
        for end, of in self.ends.items():
            if of is process and end not in self._over:
                self._over.add(end)
                other = "server" if end == "client" else "client"
                if silently:
                    self._after_silence(other)
                else:
                    self._tell(other, within_s=0.02)

    def watch_silence(self) -> None:
        if self.up.blocked or self.down.blocked:
            self._after_silence("client")
            self._after_silence("server")

    def _after_silence(self, end: str) -> None:
        loop = self._network.loop
        loop.post_at(loop.now_s + self._silence_s, self.ends[end].context(), self._silent, end)

    def _silent(self, end: str) -> None:
        other = "server" if end == "client" else "client"
        if self.up.blocked or self.down.blocked or not self.ends[other].alive:
            self._end(end)

    def _tell(self, end: str, *, within_s: float) -> None:
        """`end` hears that the other one is gone: at once, or when the way there is open again."""
        pipe = self.up if end == "server" else self.down
        if pipe.blocked:
            return
        loop = self._network.loop
        loop.post_at(max(loop.now_s, pipe.free_at_s) + within_s, self.ends[end].context(), self._end, end)

    def _end(self, end: str) -> None:
        if end not in self._over:
            self._over.add(end)
            (self.up if end == "server" else self.down).closed = True
            self._lost(end)
        if len(self._over) == 2:
            self._network.closed(self)

    def flush(self) -> None:
        """The way may be open again."""
        self.up.flush()
        self.down.flush()
        for end in ("client", "server"):
            other = "server" if end == "client" else "client"
            if other in self._over and end not in self._over:
                self._tell(end, within_s=0.05)
