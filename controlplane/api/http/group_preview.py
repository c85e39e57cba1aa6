"""What would become of a group: its next members, declared and placed on a copy of the state that is thrown away.

The same decisions are made as by the leader: `decide.groups` says which members to add, the machine declares them, and
so finds out what a quota or a policy refuses, the hosts bid, and `decide.rounds` places one after the other, so that
they fit together. Only so many are looked at that the answer comes soon.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from controlplane.api.http import shapes, views
from controlplane.api.http.services import Services
from controlplane.bidding import ask
from controlplane.decide import groups
from controlplane.decide.rounds import decide_round
from controlplane.machine.apply import apply
from controlplane.machine.state import State
from controlplane.model.commands import Command, DeclareMicroVMGroup, MarkUnplaced, seal
from controlplane.model.groups import MicroVMGroup
from controlplane.model.resources import MicroVM, MicroVMPhase

LOOKED_AT = 64
_ROUNDS = 3
"""A microVM whose hosts were all taken by those before it asks others in the next round."""
_ACTOR = "rehearsal"


async def preview(services: Services, state: State, command: DeclareMicroVMGroup) -> shapes.MembersPreview | None:
    """Of the group that `command` led to in `state`."""
    group = state.microvm_group(command.namespace, command.name)
    if group is None:
        return None
    missing = max(0, group.spec.replicas - len(groups.members_of(state, group).current))
    now_ms = services.clock.now_ms()
    state, stopped = _with_members(services, state, group, now_ms)
    waiting = [vm for vm in state.members_of(group.meta.uid) if vm.phase is MicroVMPhase.PENDING][:LOOKED_AT]
    hosts, unplaced = await _placed(services, state, waiting, now_ms)
    return shapes.MembersPreview(
        missing=missing,
        looked_at=len(waiting),
        hosts=[shapes.HostShare(host=host, members=count) for host, count in sorted(hosts.items())],
        unplaced=len(waiting) - hosts.total(),
        reason=unplaced[0].message if unplaced else None,
        bids=views.bids(unplaced[0].bids) if unplaced else [],
        stopped=stopped,
    )


def _with_members(
    services: Services, state: State, group: MicroVMGroup, now_ms: int
) -> tuple[State, shapes.Stopped | None]:
    """The state with the members that may be added now, and why there are no more of them if something refused one."""
    for _ in range(LOOKED_AT // groups.PER_STEP):
        step = groups.step(state, group, now_ms, services.ids.new)
        if step is None or not step.add:
            break
        state = _after(state, step, now_ms)
        now = state.microvm_group(str(group.meta.namespace), group.meta.name)
        if now is not None and now.stopped is not None:
            return state, shapes.Stopped(reason=now.stopped.reason, message=now.stopped.message)
    return state, None


async def _placed(
    services: Services, state: State, waiting: Sequence[MicroVM], now_ms: int
) -> tuple[Counter[str], list[MarkUnplaced]]:
    """How many would go to each host, and what would be said of those that go nowhere."""
    hosts: Counter[str] = Counter()
    unplaced: list[MarkUnplaced] = []
    for _ in range(_ROUNDS):
        if not waiting:
            break
        answers = await ask(services.agents, state, waiting, timeout_s=services.settings.preview_timeout_s)
        decided = {each.uid: each for each in decide_round(state, waiting, answers)}
        waiting = [vm for vm in waiting if vm.meta.uid not in decided]
        for each in decided.values():
            if isinstance(each, MarkUnplaced):
                unplaced.append(each)
            else:
                hosts[each.host] += 1
                state = _after(state, each, now_ms)
    return hosts, unplaced


def _after(state: State, command: Command, now_ms: int) -> State:
    return apply(state, seal(command, id="", at=now_ms, actor=_ACTOR), index=0, term=0)[0]
