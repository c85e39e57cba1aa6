"""A cluster that is restored to older states while its hosts run, in time that the schedule passes.

Real are the keeper, the watch and the machine. Modelled is what they stand on: hosts that run what they are assigned
under a lease by their own clock, whoever told them, halt it at the end, kill it after the grace, and keep what nobody
accounts for; and a leader that places and gives up as soon as the machine lets it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from support.builders import agent_connected, declare_host, declare_microvm, declare_namespace, place
from unit.reconcile.world import World

from controlplane.machine.outcome import Applied
from controlplane.machine.state import State
from controlplane.model.commands import Destroyed, Report, Resurrect
from controlplane.model.resources import HostPhase, MicroVM, MicroVMPhase, Unmanaged
from controlplane.model.spec import HostFailure, OnDetach, Recovery, detach_action
from controlplane.reconcile.hostwatch import PERIOD_S
from controlplane.settings import LeaseSettings

MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)
SLOW = 1 / 1.1
"""Of the slowest clock that a host may have."""


class Violation(AssertionError):  # noqa: N818 - the word for it
    """Two copies of a microVM run."""


@dataclass
class Copy:
    epoch: int
    keep: bool
    """No lease ends it."""
    running: bool = True


@dataclass
class ModelHost:
    name: str
    number: int = 0
    """Of its session."""
    ends_s: float = -1e9
    """Of its lease, by its own clock."""
    cut: bool = False
    copies: dict[str, Copy] = field(default_factory=dict[str, Copy])
    assigned: Sequence[MicroVM] = ()
    """What it was told last."""

    @property
    def session(self) -> str:
        return f"{self.name}-s{self.number}"

    def runs(self, uid: str, now_s: float) -> bool:
        held = self.copies.get(uid)
        return held is not None and held.running and (held.keep or now_s < self.ends_s)


class RestoredCluster:
    """`web` moves when its host is lost; `kept` is declared late, runs without a lease, and never moves."""

    def __init__(self, lease: LeaseSettings | None = None, *, tells: bool = False) -> None:
        """`tells`: hosts are told of the restored state before its incarnation has begun, as they must not be."""
        self.tells = tells
        self.world = World(lease)
        self.hosts = {name: ModelHost(name) for name in ("h1", "h2", "h3")}
        self.history: list[State] = []
        """A state for every step; any of them may have been backed up."""
        self.hosts_of: dict[tuple[str, int], str] = {}
        self.moved = self.refused = 0
        for name in self.hosts:
            self.world.accept(declare_host(name))
        self.world.accept(declare_namespace())
        self.world.accept(declare_microvm("web", recovery=MOVES))
        self.world.accept(declare_microvm("kept", recovery=Recovery(on_detach=OnDetach.KEEP)))

    @property
    def own_s(self) -> float:
        """What the clocks of the hosts say."""
        return self.world.time_s * SLOW

    # -- what may happen -----------------------------------------------------------------------------------------------

    def cut(self, name: str) -> None:
        self.hosts[name].cut = True

    def heal(self, name: str) -> None:
        self.hosts[name].cut = False

    def restore(self, share: float) -> None:
        """To a state of so long ago, as a share of all the time there was; in the next incarnation."""
        world = self.world
        world.state = self.history[round((len(self.history) - 1) * (1 - share))]
        world.incarnation += 1
        world.term = world.leads_in = (world.leads_in or 0) + 1
        world.restart_front()

    async def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / PERIOD_S)):
            self.world.time_s += PERIOD_S
            await self.world.tick()
            for host in self.hosts.values():
                self._age(host)
                if not host.cut:
                    await self._serve(host)
                self._act(host)
            if self.world.begun:
                self._decide()
            self.history.append(self.world.state)
            self._check()

    # -- inside --------------------------------------------------------------------------------------------------------

    def _age(self, host: ModelHost) -> None:
        if self.own_s >= host.ends_s + self.world.lease.grace_s:
            for held in host.copies.values():
                held.running = held.running and held.keep

    async def _serve(self, host: ModelHost) -> None:
        world = self.world
        if (known := world.state.hosts.get(host.name)) is None or known.session != host.session:
            host.number += 1
            world.accept(agent_connected(host.name, session=host.session))
        if (ttl_s := await world.heartbeat(host.name, host.number)) is not None:
            host.ends_s = self.own_s + ttl_s
        if world.begun or self.tells:
            host.assigned = tuple(world.state.microvms_on(host.name))
            self._report(host)

    def _act(self, host: ModelHost) -> None:
        for vm in host.assigned:
            held, keep = host.copies.get(vm.meta.uid), detach_action(vm.spec) is OnDetach.KEEP
            newer = held is not None and held.epoch > vm.epoch
            if not newer and (keep or self.own_s < host.ends_s):
                host.copies[vm.meta.uid] = Copy(vm.epoch, keep)

    def _report(self, host: ModelHost) -> None:
        state = self.world.state
        orders = state.hosts[host.name].stale
        done = [uid for uid, epoch in orders.items() if uid not in host.copies or host.copies[uid].epoch <= epoch]
        for uid in done:
            host.copies.pop(uid, None)
        assigned = {vm.meta.uid: vm.epoch for vm in state.microvms_on(host.name)}
        strangers = [
            Unmanaged(native_id=uid, driver="simulated", uid=uid, epoch=held.epoch)
            for uid, held in sorted(host.copies.items())
            if assigned.get(uid) != held.epoch
        ]
        known = [(each.uid, each.epoch) for each in state.hosts[host.name].unmanaged]
        rejoins = state.hosts[host.name].phase is HostPhase.REJOINING
        if not done and not rejoins and known == [(each.uid, each.epoch) for each in strangers]:
            return
        self.world.accept(
            Report(
                host=host.name,
                session=host.session,
                destroyed=[Destroyed(uid=uid, epoch=orders[uid]) for uid in done],
                unmanaged=strangers,
                rejoined=True,
            )
        )

    def _decide(self) -> None:
        world = self.world
        for vm in list(world.state.microvms.values()):
            if vm.placement is not None and world.state.hosts[vm.placement.host].phase is HostPhase.FENCED:
                world.apply(
                    Resurrect(
                        uid=vm.meta.uid,
                        epoch=vm.epoch,
                        host=vm.placement.host,
                        term=world.leads_in or 0,
                        reason="fenced",
                    )
                )
        for vm in [world.state.microvms[uid] for uid in world.state.pending]:
            if vm.meta.name == "kept" and world.time_s < 1020.0:
                continue
            for name in sorted(self.hosts, reverse=vm.meta.name == "kept"):
                if world.state.microvms[vm.meta.uid].phase is MicroVMPhase.PENDING:
                    self._place(vm.meta.uid, name)

    def _place(self, uid: str, host: str) -> None:
        world = self.world
        if world.state.hosts[host].phase is not HostPhase.READY:
            return
        if not isinstance(world.apply(place(world.state.microvms[uid], host)), Applied):
            self.refused += 1
            return
        epoch = world.state.microvms[uid].epoch
        self.moved += epoch > 1
        if self.hosts_of.setdefault((uid, epoch), host) != host:
            raise Violation(f"{uid} had epoch {epoch} on {self.hosts_of[uid, epoch]} already")

    def _check(self) -> None:
        for uid in self.world.state.microvms:
            running = [host.name for host in self.hosts.values() if host.runs(uid, self.own_s)]
            if len(running) > 1:
                raise Violation(f"{uid} runs on {' and '.join(running)}")
