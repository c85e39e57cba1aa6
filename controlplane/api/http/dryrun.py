"""Dry runs: what a declaration would do, found by doing it to a copy of the state that is thrown away.

The machine itself is asked, so a dry run refuses what the write would refuse. For a microVM that would be waiting for a
host, the hosts are asked for bids as the scheduler would ask them, within a deadline; hosts that do not answer in time
are shown as refusing. Of a group, so are the members that it would get (`group_preview`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Literal, cast

from controlplane.api.http import group_preview, problems, reads, shapes, views
from controlplane.api.http.services import Services
from controlplane.decide import changes, placement
from controlplane.decide.shortlist import GROWTH, WIDTH, Fleet, Shortlist
from controlplane.identity.principal import Principal
from controlplane.machine.apply import apply
from controlplane.machine.outcome import Applied, Change, Code, Outcome, Rejected
from controlplane.machine.state import State
from controlplane.model.commands import Command, Declaration, DeclareMicroVM, DeclareMicroVMGroup, Place, seal
from controlplane.model.commands.versions import version_needed
from controlplane.model.credentials import Sealed
from controlplane.model.resources import Bid, MicroVM, MicroVMPhase
from controlplane.model.secrets import DataKey
from controlplane.model.spec import Effect
from controlplane.model.types import replace
from controlplane.ports import BidRequestItem, HostUnreachableError, UpgradePendingError

_NO_KEY = Sealed(key_id="", wrapped="", box="")
_OUTCOMES: dict[Change, Literal["create", "update", "none"]] = {
    Change.CREATED: "create",
    Change.CHANGED: "update",
    Change.UNCHANGED: "none",
}


def rehearse(services: Services, actor: Principal, state: State, command: Command) -> tuple[State, Outcome]:
    """The state and the outcome that `command` would lead to from `state`. Raises UpgradePendingError, as proposing it
    would.
    """
    if (needed := version_needed(command)) > state.machine_version:
        raise UpgradePendingError(
            f"this needs machine version {needed}, and the cluster is at {state.machine_version} until every node runs "
            f"a build that knows it"
        )
    envelope = seal(command, id=services.ids.new(), at=services.clock.now_ms(), actor=actor.name)
    after, outcome, _ = apply(state, envelope, index=0, term=0)
    return after, outcome


def keyed(state: State, commands: Iterable[Command]) -> State:
    """`state` with the data key that the write would make before the cluster's first secrets (see `Vault.rehearse`)."""
    for each in commands:
        for value in each.sealed.values() if isinstance(each, DeclareMicroVM) else ():
            if value.key_id not in state.data_keys:
                key = DataKey(id=value.key_id, number=0, key=_NO_KEY, actor="", at=0)
                state = replace(state, data_keys=state.data_keys.set(key.id, key))
    return state


async def declare(
    services: Services, actor: Principal, state: State, command: Declaration, warnings: Sequence[str]
) -> shapes.DryRun:
    before = reads.find_for(state, command)
    after, outcome = rehearse(services, actor, keyed(state, [command]), command)
    if isinstance(outcome, Rejected) and outcome.code is not Code.REQUIRES_REPLACEMENT:
        raise problems.from_rejected(outcome, existing=before.meta if before is not None else None)
    preview = None
    if isinstance(outcome, Applied) and isinstance(command, DeclareMicroVM):
        vm = after.microvm(command.namespace, command.name)
        if vm is not None and vm.phase is MicroVMPhase.PENDING:
            preview = await preview_placement(services, after, vm)
    members = None
    if isinstance(outcome, Applied) and isinstance(command, DeclareMicroVMGroup):
        members = await group_preview.preview(services, after, command)
    return shapes.DryRun(
        outcome=_OUTCOMES[outcome.change] if isinstance(outcome, Applied) else "replace",
        changes=list(_changes(before, command)),
        placement=preview,
        members=members,
        warnings=list(warnings),
    )


async def preview_placement(services: Services, state: State, vm: MicroVM) -> shapes.PlacementPreview:
    """Where the scheduler would put `vm` now."""
    shortlist = Shortlist(state, Fleet(state), vm)
    bids: list[Bid] = []
    width = WIDTH
    while hosts := shortlist.take(width):
        asked = await asyncio.gather(*(_bid(services, host, vm) for host in hosts))
        bids += asked
        if any(bid.refused is None for bid in asked):
            break
        width *= GROWTH
    choice = placement.choose(state, vm, [*shortlist.refused, *bids])
    if isinstance(choice, Place):
        return shapes.PlacementPreview(
            host=choice.host, reason=f"lowest score ({choice.score:.3f})", bids=views.bids(choice.bids)
        )
    return shapes.PlacementPreview(host=None, reason=choice.message, bids=views.bids(choice.bids))


async def _bid(services: Services, host: str, vm: MicroVM) -> Bid:
    timeout_s = services.settings.preview_timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            answers = await services.agents.bids(
                host, [BidRequestItem(uid=vm.meta.uid, spec=vm.spec)], timeout_s=timeout_s
            )
    except HostUnreachableError as error:
        return Bid(host=host, refused=str(error) or "the host cannot be reached")
    except TimeoutError:
        return Bid(host=host, refused=f"the host did not answer within {timeout_s:g} s")
    return answers.get(vm.meta.uid) or Bid(host=host, refused="the host made no bid")


def _changes(before: views.Record | None, command: Declaration) -> Iterator[shapes.ChangeShape]:
    if before is None:
        return
    if isinstance(before, MicroVM) and isinstance(command, DeclareMicroVM):
        for each in changes.diff(before.spec, command.spec):
            yield shapes.ChangeShape(pointer=each.pointer, from_=each.old, to=each.new, effect=each.effect)
    else:
        yield from _leaves("/spec", asdict(before.spec), asdict(command.spec))
    yield from _leaves("/labels", before.meta.labels, command.labels)
    yield from _leaves("/annotations", before.meta.annotations, command.annotations)


def _leaves(pointer: str, old: Any, new: Any) -> Iterator[shapes.ChangeShape]:
    """Every leaf that differs; of what is not a microVM's spec, every change takes effect at once."""
    if isinstance(old, dict) or isinstance(new, dict):
        was = cast("dict[str, Any]", old if isinstance(old, dict) else {})
        now = cast("dict[str, Any]", new if isinstance(new, dict) else {})
        for key in sorted(was.keys() | now.keys()):
            yield from _leaves(f"{pointer}/{problems.escape(key)}", was.get(key), now.get(key))
    elif old != new:
        yield shapes.ChangeShape(pointer=pointer, from_=old, to=new, effect=Effect.LIVE)


def rehearse_each(
    services: Services, actor: Principal, state: State, commands: Sequence[Command]
) -> tuple[State, list[Outcome]]:
    """As `propose_each` would: every command on the state that the ones before left."""
    outcomes: list[Outcome] = []
    for command in commands:
        state, outcome = rehearse(services, actor, state, command)
        outcomes.append(outcome)
    return state, outcomes
