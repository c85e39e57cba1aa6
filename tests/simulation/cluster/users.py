"""Users and an operator: what they ask of any node, and what they learn of it."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from simulation.cluster.loop import Machine
from simulation.cluster.node import Node
from support.builders import KERNEL, confirm_fenced

from controlplane.machine.outcome import Applied, Outcome
from controlplane.model.commands import (
    Act,
    Action,
    ActOnHost,
    Command,
    DeclareHost,
    DeclareMicroVM,
    DeclareNamespace,
    Delete,
    HostAction,
)
from controlplane.model.resources import HostPhase, MicroVMPhase
from controlplane.model.spec import HostFailure, HostSpec, MicroVMSpec, NamespaceSpec, OnDetach, PowerState, Recovery
from controlplane.model.types import Kind
from controlplane.ports import LogError
from controlplane.replica import Replica

if TYPE_CHECKING:
    from simulation.cluster.world import World

NAMESPACE = "demo"
PATIENCE_S = 8.0
_RECOVERIES = (
    Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE),
    Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE),
    Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE, on_detach=OnDetach.STOP),
    Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE, on_detach=OnDetach.SHUTDOWN),
    Recovery(),
    Recovery(on_detach=OnDetach.STOP),
)
_ACTIONS = (Action.RESTART, Action.RESTART, Action.STOP, Action.START, Action.START, Action.REPAIR, Action.PAUSE)


_HOST_ACTIONS = (HostAction.DRAIN, HostAction.MAINTENANCE, HostAction.UNCORDON, HostAction.UNCORDON)


class Users:
    def __init__(self, world: World) -> None:
        self._world = world
        self._chance = random.Random(f"{world.seed} users")
        self.numbers = itertools.count()
        self.machine = Machine(world.loop, "users", world.seed)

    # -- asking --------------------------------------------------------------------------------------------------------

    async def ask(self, node: Node, make: Callable[[Replica], Awaitable[Any]]) -> Any:
        """What the node's front answers; None when nothing came in time, as of a node that is down or cut off."""
        world, front = self._world, node.front
        if front is None or not front.process.alive or not world.network.reachable("users", node.name):
            return None
        answer: asyncio.Future[Any] = world.loop.create_future()

        async def work() -> None:
            try:
                result = await make(front.replica)
            except LogError as error:
                result = error
            if world.network.reachable("users", node.name):
                world.loop.post_at(world.loop.now_s + 0.001, contextvars.Context(), settle, result)

        def settle(result: Any) -> None:
            if not answer.done():
                answer.set_result(result)

        front.process.post_after(0.001, lambda: world.loop.create_task(work()))
        try:
            async with asyncio.timeout(PATIENCE_S + 2.0):
                return await answer
        except TimeoutError:
            return None

    async def propose(self, command: Command, actor: str = "user") -> Outcome | None:
        """Ask some node to commit it. None when its fate is unknown, or it was certainly not written."""
        key = f"key-{next(self.numbers)}"
        node = self._chance.choice(list(self._world.nodes.values()))
        outcome = await self.ask(
            node, lambda replica: replica.propose(command, actor=actor, key=key, timeout_s=PATIENCE_S)
        )
        seen = self._world.seen
        if isinstance(outcome, Applied):
            seen["write acknowledged"] += 1
            self._world.checker.acknowledge(key, f"{type(command).__name__} {getattr(command, 'name', '')}")
        else:
            seen["write refused" if outcome is not None and not isinstance(outcome, LogError) else "write unknown"] += 1
        self._world.note("user", type(command).__name__, getattr(command, "name", ""), type(outcome).__name__)
        return outcome if not isinstance(outcome, LogError) else None

    async def insist(self, command: Command) -> None:
        while not isinstance(await self.propose(command), Applied):  # noqa: ASYNC110 - nobody tells when to
            await asyncio.sleep(0.5)

    # -- what they want ------------------------------------------------------------------------------------------------

    async def found(self) -> None:
        """A cluster with hosts and some microVMs."""
        await self.insist(DeclareNamespace(name=NAMESPACE, uid="ns-demo", spec=NamespaceSpec()))
        for name in self._world.hosts:
            await self.insist(DeclareHost(name=name, uid=f"host-{name}", spec=HostSpec()))
        for number in range(self._world.profile.microvms):
            await self.insist(self.declaration(f"vm-{number}"))

    async def put_back(self) -> None:
        """Every host into service."""
        for name in self._world.hosts:
            await self.insist(ActOnHost(host=name, action=HostAction.UNCORDON))

    def uid(self) -> str:
        return f"uid-{next(self.numbers)}"

    def declaration(self, name: str, recovery: Recovery | None = None, vcpu: int | None = None) -> DeclareMicroVM:
        chance = self._chance
        spec = MicroVMSpec(
            vcpu=vcpu or chance.choice((1, 1, 2)),
            memory_in_mb=chance.choice((128, 256)),
            kernel=KERNEL,
            recovery=recovery or self._recovery(),
        )
        return DeclareMicroVM(namespace=NAMESPACE, name=name, uid=self.uid(), spec=spec)

    def _recovery(self) -> Recovery:
        moving = self._chance.random() < self._world.profile.moving
        return _RECOVERIES[0] if moving else self._chance.choice(_RECOVERIES)

    async def work(self) -> None:
        """One thing that a user does."""
        chance, state = self._chance, self._world.checker.state
        name = f"vm-{chance.randrange(self._world.profile.microvms + 2)}"
        vm = state.microvm(NAMESPACE, name)
        self._world.seen["user work"] += 1
        if vm is None or vm.phase is MicroVMPhase.DELETING:
            await self.propose(self.declaration(name))
            return
        what = chance.random()
        if what < 0.06:
            host, action = chance.choice(list(self._world.hosts)), chance.choice(_HOST_ACTIONS)
            await self.propose(ActOnHost(host=host, action=action, max_parallel=chance.choice((None, 3))))
        elif what < 0.2:
            await self.propose(Delete(kind=Kind.MICROVM, namespace=NAMESPACE, name=name))
        elif what < 0.55:
            await self.propose(Act(namespace=NAMESPACE, name=name, action=chance.choice(_ACTIONS)))
        else:
            changed = DeclareMicroVM(namespace=NAMESPACE, name=name, uid=vm.meta.uid, spec=self._changed(vm.spec))
            await self.propose(changed)

    def _changed(self, spec: MicroVMSpec) -> MicroVMSpec:
        given = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
        if self._chance.random() < 0.6:
            given["recovery"] = self._recovery()
        else:
            given["vcpu"] = self._chance.choice((1, 2, 3))
        given["power_state"] = self._chance.choice((PowerState.RUNNING, PowerState.RUNNING, spec.power_state))
        return MicroVMSpec(**given)

    async def confirm_off(self, host: str) -> None:
        """The operator says so of a host that is."""
        record = self._world.checker.state.hosts.get(host)
        if record is None or record.phase not in (HostPhase.SUSPECT, HostPhase.DETACHED, HostPhase.FENCED):
            return
        if isinstance(await self.propose(confirm_fenced(host), actor="operator"), Applied):
            self._world.seen["operator confirmed"] += 1
