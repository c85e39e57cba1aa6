"""What must hold, told by those who know: the log as it is applied, the hosts' guests as they run, and users.

- Every node has the same state at the same index, and one history: an entry that was applied is never another one.
- An acknowledged write is in the log, and stays.
- At most one copy of a microVM runs, asked of the hosts themselves and in true time.
- What was given up on a lost host does not run there, and never will again.
- Nothing is destroyed that the log never gave the order to destroy, of that epoch or a newer one, to that host.
- What a host's microVMs hold is no more than what it has; what runs there neither.
- A command that was decided in one term has no effect in another one.

A violation is remembered, not raised: the product's own handlers would swallow it. The world stops at the next step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from simulation.cluster.host import Guest, SimulatedHost
from simulation.raft.invariants import Violation

from controlplane.machine.entry import MachineState, apply_entry
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.outcome import Applied, Outcome
from controlplane.machine.state import State
from controlplane.model.commands import (
    BeginIncarnation,
    Command,
    HostDetached,
    HostFenced,
    Resurrect,
    decode_entry,
    open_payload,
)
from controlplane.model.resources import Host, ObservedPower

_OF_A_TERM = HostDetached | HostFenced | Resurrect | BeginIncarnation


@dataclass(frozen=True)
class Entry:
    """What stands at an index, and the digest of the state after it."""

    term: int
    data: bytes
    digest: int


V = TypeVar("V")


def changed(before: Mapping[str, V], after: Mapping[str, V]) -> Iterator[tuple[str, V | None, V | None]]:
    """What is not the same object in both, by key, as it was and as it is."""
    if before is after:
        return
    for key, now in after.items():
        if (was := before.get(key)) is not now:
            yield key, was, now
    for key, was in before.items():
        if key not in after:
            yield key, was, None


class History:
    """The log of one incarnation, as whoever applied an index first had it."""

    def __init__(self, incarnation: int, index: int, state: State) -> None:
        self.incarnation = incarnation
        self.first = index
        self.index = index
        self.term = 0
        self.state = state
        self.entries: dict[int, Entry] = {}
        self.keys: dict[str, int] = {}
        """Ids of the applied envelopes of users, and where they stand."""
        self.states: dict[int, State] = {index: state}
        """Every state, for backups."""


class CheckedState(MachineState):
    """The machine of one node's raft process, under the eyes of the checker."""

    def __init__(self, cluster_id: str, checker: Checker, node: str) -> None:
        super().__init__(cluster_id)
        self._checker = checker
        self._node = node

    def apply(self, index: int, term: int, entry: bytes) -> None:
        super().apply(index, term, entry)
        self._checker.applied(self._node, index, term, entry, self.state)


class Checker:
    def __init__(self, cluster_id: str, seen: Counter[str], hosts: Mapping[str, SimulatedHost]) -> None:
        self.violation: Violation | None = None
        self.history = History(1, 0, State(cluster_id=cluster_id))
        self.given_up: dict[tuple[str, str], int] = {}
        """(host, uid) to the newest epoch whose copy was given up there."""
        self.orders: dict[tuple[str, str], int] = {}
        """(host, uid) to the newest epoch that the host was ever ordered to destroy."""
        self.acknowledged: dict[str, tuple[int, str]] = {}
        """Idempotency key to the incarnation and what was acknowledged."""
        self.stopped = asyncio.Event()
        self.news = asyncio.Event()
        """Set, and another one from then on, when `state` changes."""
        self._cluster_id = cluster_id
        self._seen = seen
        self._hosts = hosts

    @property
    def state(self) -> State:
        """The newest that anybody has applied."""
        return self.history.state

    def state_of(self, node: str) -> CheckedState:
        return CheckedState(self._cluster_id, self, node)

    def violate(self, kind: str, what: str) -> None:
        if self.violation is None:
            self.violation = Violation(kind, what)
            self.stopped.set()

    # -- the log -------------------------------------------------------------------------------------------------------

    def restored(self, incarnation: int, index: int, state: State) -> None:
        """The cluster begins anew from `state`."""
        self.history = History(incarnation, index, state)
        self.given_up.clear()
        self._tell_news()

    def applied(self, node: str, index: int, term: int, data: bytes, state: State) -> None:
        history = self.history
        if index <= history.index:
            known = history.entries.get(index)
            if known is None:
                return
            if (known.term, known.data) != (term, data):
                self.violate("committed entry replaced", f"{node} applied another entry {index}, of term {term}")
            elif known.digest != state.digest:
                self.violate("states differ", f"{node} has another state at {index}")
            return
        before = history.state
        after, outcomes, _ = apply_entry(before, data, index=index, term=term)
        if after.digest != state.digest:
            self.violate("states differ", f"{node} has another state at {index}")
        history.entries[index] = Entry(term, data, after.digest)
        history.index, history.term, history.state = index, term, after
        history.states[index] = after
        answers = dict(outcomes)
        for envelope in decode_entry(data):
            if envelope.key is not None:
                history.keys[envelope.key] = index
            self._seen[f"command {envelope.kind}"] += 1
            self._committed(open_payload(envelope), answers[envelope.id], term)
        self._look_at_changes(before, after)
        self._tell_news()

    def _tell_news(self) -> None:
        told, self.news = self.news, asyncio.Event()
        told.set()

    def _committed(self, command: Command, outcome: Outcome, term: int) -> None:
        if not isinstance(outcome, Applied):
            self._seen["command refused"] += 1
            return
        if isinstance(command, _OF_A_TERM) and command.term != term:
            self.violate("late command", f"{type(command).__name__} of term {command.term} took effect in term {term}")
        if isinstance(command, Resurrect):
            self.given_up[command.host, command.uid] = command.epoch
            for guest in self._hosts[command.host].running():
                self._check_given_up(self._hosts[command.host], guest)

    def _look_at_changes(self, before: State, after: State) -> None:
        for name, was, now in changed(before.hosts, after.hosts):
            self._note_move("host", was and was.phase, now and now.phase)
            if was is not None and now is not None:
                self._note_move("availability", availability(was), availability(now))
            if now is not None:
                self._check_host(name, now)
        for uid, old, vm in changed(before.microvms, after.microvms):
            self._note_move("microvm", old and old.phase, vm and vm.phase)
            if vm is not None and vm.is_tombstone and vm.placement is not None:
                self._order(vm.placement.host, uid, vm.epoch)

    def _note_move(self, what: str, old: StrEnum | None, new: StrEnum | None) -> None:
        if old is not new:
            self._seen[f"{what} {old or 'new'} -> {new or 'gone'}"] += 1

    def _check_host(self, name: str, host: Host) -> None:
        if host.inventory is not None:
            has, held = host.inventory.capacity, host.allocated
            if held.vcpu > has.vcpu or held.memory_in_mb > has.memory_in_mb:
                self.violate("over capacity", f"host {name} holds {held} of {has}")
        for uid, epoch in host.stale.items():
            self._order(name, uid, epoch)

    def _order(self, host: str, uid: str, epoch: int) -> None:
        if self.orders.get((host, uid), 0) < epoch:
            self.orders[host, uid] = epoch

    # -- users ---------------------------------------------------------------------------------------------------------

    def acknowledge(self, key: str, what: str) -> None:
        history = self.history
        self.acknowledged[key] = history.incarnation, what
        if key not in history.keys:
            self.violate("false acknowledgement", f"{what} ({key}) was acknowledged and is not in the log")

    # -- guests --------------------------------------------------------------------------------------------------------

    def guest_changed(self, host: SimulatedHost, guest: Guest) -> None:
        if guest.power is not ObservedPower.RUNNING or guest.vm is None:
            return
        self._seen["guest started"] += 1
        self._check_given_up(host, guest)
        for other in self._hosts.values():
            copy = other.guests.get(guest.vm.uid) if other is not host else None
            if copy is not None and copy.vm is not None and copy.power is ObservedPower.RUNNING:
                self.violate(
                    "two copies run",
                    f"{guest.vm.name} ({guest.vm.uid}) runs on {host.name} with epoch {guest.vm.epoch}"
                    f" and on {other.name} with epoch {copy.vm.epoch}",
                )
        vcpu = sum(each.vcpu for each in host.running() if each.vm is not None)
        memory = sum(each.memory_in_mb for each in host.running() if each.vm is not None)
        if vcpu > host.vcpu or memory > host.memory_in_mb:
            self.violate("over capacity", f"on host {host.name} {vcpu} vCPU and {memory} MB run")

    def _check_given_up(self, host: SimulatedHost, guest: Guest) -> None:
        if guest.vm is None:
            return
        epoch = self.given_up.get((host.name, guest.vm.uid), 0)
        if guest.vm.epoch <= epoch:
            self.violate(
                "runs after it was given up",
                f"{guest.vm.name} runs on {host.name} with epoch {guest.vm.epoch}, and {epoch} was given up there",
            )

    def destroying(self, host: SimulatedHost, guest: Guest) -> None:
        self._seen["guest destroyed"] += 1
        uid, epoch = (guest.vm.uid, guest.vm.epoch) if guest.vm is not None else (guest.native_id, 1)
        ordered = self.orders.get((host.name, uid), 0)
        if ordered < epoch:
            order = f"the newest order is about epoch {ordered}" if ordered else "there was no order"
            self.violate("destroyed without an order", f"{uid} of epoch {epoch} on {host.name}: {order}")

    # -- the end -------------------------------------------------------------------------------------------------------

    def verdict(self) -> None:
        for key, (incarnation, what) in self.acknowledged.items():
            if incarnation == self.history.incarnation and key not in self.history.keys:
                self.violate("acknowledged write lost", f"{what} ({key})")
