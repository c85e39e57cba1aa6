"""Users with fleets: a group of equal microVMs is declared, brought to other templates and sizes, and ended."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

from simulation.cluster.operating import comes
from simulation.cluster.users import NAMESPACE
from support.builders import KERNEL

from controlplane.decide.group_progress import progress
from controlplane.machine.state import State
from controlplane.model.commands import DeclareMicroVMGroup, Delete
from controlplane.model.groups import MicroVMGroup, MicroVMGroupSpec, Rollout, group_key
from controlplane.model.spec import HostFailure, MicroVMSpec, Recovery
from controlplane.model.types import Kind

if TYPE_CHECKING:
    from simulation.cluster.world import World

_MOVES = Recovery(on_host_failure=HostFailure.RESTART_ELSEWHERE)


async def group_rolled(world: World, chance: random.Random) -> None:
    """Each change comes when the one before is done, or when its user has lost patience."""
    name = f"group-{next(world.users.numbers)}"
    world.count("group declared")
    uid, spec = world.users.uid(), _first(chance)
    await world.users.propose(DeclareMicroVMGroup(namespace=NAMESPACE, name=name, uid=uid, spec=spec))
    for _ in range(chance.randint(1, 4)):
        if await comes(world, lambda state: _is_complete(state, name), chance.uniform(1.0, 90.0)):
            world.seen["group complete"] += 1
        what = chance.choice(("rolled", "rolled", "scaled", "changed in place"))
        world.count(f"group {what}")
        spec = _another(spec, what, chance)
        await world.users.propose(DeclareMicroVMGroup(namespace=NAMESPACE, name=name, uid=uid, spec=spec))
    await comes(world, lambda state: _is_complete(state, name), 60.0)
    if chance.random() < 0.8:
        world.count("group deleted")
        await world.users.propose(Delete(kind=Kind.MICROVM_GROUP, namespace=NAMESPACE, name=name))


def _first(chance: random.Random) -> MicroVMGroupSpec:
    template = MicroVMSpec(vcpu=1, memory_in_mb=128, kernel=KERNEL, recovery=chance.choice((_MOVES, Recovery())))
    surge, unavailable = chance.choice(((1, 0), (0, 1), (1, 1)))
    rollout = Rollout(max_surge=surge, max_unavailable=unavailable, ready_deadline_s=chance.choice((20, 600)))
    return MicroVMGroupSpec(replicas=chance.randint(1, 4), template=template, rollout=rollout)


def _another(spec: MicroVMGroupSpec, what: str, chance: random.Random) -> MicroVMGroupSpec:
    template = spec.template
    match what:
        case "rolled":
            other = dataclasses.replace(template, memory_in_mb=384 - template.memory_in_mb)
            return dataclasses.replace(spec, template=other)
        case "scaled":
            return dataclasses.replace(spec, replicas=chance.randint(0, 4))
        case _:
            recovery = Recovery() if template.recovery == _MOVES else _MOVES
            return dataclasses.replace(spec, template=dataclasses.replace(template, recovery=recovery))


def _is_complete(state: State, name: str) -> bool:
    group: MicroVMGroup | None = state.microvm_groups.get(group_key(NAMESPACE, name))
    return group is not None and progress(state, group).complete
