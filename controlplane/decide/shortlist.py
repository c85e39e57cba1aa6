"""Which hosts to ask for a bid: a few that fit at a time, whatever the size of the fleet (docs/adr/0164).

A microVM goes to the lowest of some bids, and the lowest of four of any thousand hosts is nearly as low as that of all.
So hosts are looked at one after the other until enough of them fit. Where none of these offers, the next ones are
taken, until every host was looked at: a host that fits is found if there is one, and whoever finds none knows why not
of each.

The order is a permutation of the fleet that follows from the microVM's uid, so that decisions can be repeated and
microVMs that are placed at once ask different hosts. Hosts that lack a required label come last, to be explained; of
those with different numbers of preferred labels, each number has its turn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from itertools import chain, islice
from math import gcd

from controlplane.machine.placement_rules import Constraints, label_of, withheld
from controlplane.machine.state import State
from controlplane.model.resources import Bid, Host, MicroVM

WIDTH = 4
"""So many hosts that fit are asked first."""
GROWTH = 4
"""Where none of these offers, so many times as many are asked next."""


class Fleet:
    """The hosts of a state, and which of them have the labels that microVMs ask for.

    Names and labels alone: it stays right while microVMs are put on the hosts.
    """

    def __init__(self, state: State) -> None:
        self.hosts: Mapping[str, Host] = state.hosts
        self.names = tuple(state.hosts)
        self._by_labels: dict[str, list[Sequence[str]]] = {}

    def groups(self, vm: MicroVM, constraints: Constraints) -> list[Sequence[str]]:
        """Hosts with the name and labels that `vm` requires, those with the most preferred labels first."""
        pin = vm.spec.placement.host
        if pin is not None:
            return [(pin,)] if pin in self.hosts and constraints.label_refusal(self.hosts[pin]) is None else []
        preferred = constraints.policy.spec.preferred_host_labels if constraints.policy is not None else {}
        key = repr([sorted(labels.items()) for labels in (*constraints.required, preferred)])
        groups = self._by_labels.get(key)
        if groups is None:
            by_hits: dict[int, list[str]] = {}
            for name in self.names:
                host = self.hosts[name]
                if constraints.label_refusal(host) is None:
                    by_hits.setdefault(hits(preferred, host), []).append(name)
            groups = self._by_labels[key] = [by_hits[count] for count in sorted(by_hits, reverse=True)]
        return groups

    def others(self, groups: Sequence[Sequence[str]]) -> Iterator[str]:
        """The hosts that are in none of `groups`."""
        met: set[str] = set()
        met.update(*groups)
        yield from (name for name in self.names if name not in met)


class Shortlist:
    """The hosts that may take one microVM, a few at a time."""

    def __init__(self, state: State, fleet: Fleet, vm: MicroVM) -> None:
        self.refused: list[Bid] = []
        """The hosts met so far that may not, with the reason; all of them once nothing is left to take."""
        self._state = state
        self._fleet = fleet
        self._vm = vm
        self._eligible = self._walk()

    def take(self, count: int) -> list[str]:
        """The next `count` hosts; fewer where no others are left."""
        return list(islice(self._eligible, count))

    def _walk(self) -> Iterator[str]:
        constraints = Constraints(self._state, self._vm)
        everywhere = withheld(self._state, self._vm)
        if everywhere is not None:
            self.refused += [Bid(host=name, refused=everywhere) for name in self._fleet.names]
            return
        groups = self._fleet.groups(self._vm, constraints)
        suited = _in_turn([_permuted(group, self._vm.meta.uid) for group in groups])
        for name in chain(suited, self._fleet.others(groups)):
            host = self._state.hosts.get(name)
            reason = constraints.refusal(host) if host is not None else "it was deleted"
            if reason is None:
                yield name
            else:
                self.refused.append(Bid(host=name, refused=reason))


def hits(preferred: Mapping[str, str], host: Host) -> int:
    """How many of the `preferred` labels the host has."""
    return sum(label_of(host, key) == value for key, value in preferred.items())


def _permuted(names: Sequence[str], uid: str) -> Iterator[str]:
    """`names` from some place on, in steps of some width: each once, and otherwise for each uid."""
    if not names:
        return
    digest = blake2b(uid.encode(), digest_size=16).digest()
    at, step = int.from_bytes(digest[:8], "big") % len(names), int.from_bytes(digest[8:], "big") % len(names)
    while gcd(step, len(names)) != 1:
        step += 1
    for _ in names:
        yield names[at]
        at = (at + step) % len(names)


def _in_turn(orders: Iterable[Iterator[str]]) -> Iterator[str]:
    """One of each in turn."""
    left = list(orders)
    while left:
        for order in list(left):
            name = next(order, None)
            if name is None:
                left.remove(order)
            else:
                yield name
