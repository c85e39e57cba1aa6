"""Many declarations and deletions in one request: all of them or none, or each for itself.

Every item is checked on its own, so that one that is wrong does not hide what is said of the others. Declarations are
proposed namespaces first and microVMs last, deletions the other way round, whatever their order in the request; results
come in the request's order. A deletion of what is not there is done already, so that a batch may be repeated.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, TypeVar, cast

from pydantic import BaseModel, SecretStr, ValidationError

from controlplane.api.http import dryrun, problems, reads, sealing, shapes
from controlplane.api.http.access import KIND_OF, Asker, about_named, labels_of
from controlplane.api.http.declarations import (
    ITEM_OF,
    ITEMS,
    ApplyBody,
    Identity,
    Item,
    MicroVMGroupItem,
    MicroVMItem,
    Removal,
)
from controlplane.api.http.declaring import declares
from controlplane.api.http.services import Services
from controlplane.decide.access import Question
from controlplane.identity.principal import Principal
from controlplane.machine.outcome import Applied, Change, Outcome, Rejected
from controlplane.machine.state import State
from controlplane.model.access import Verb
from controlplane.model.commands import Batch, Command, Declaration, DeclareMicroVM, Delete, seal
from controlplane.model.types import Kind, record, replace

_RANK = {
    Kind.NAMESPACE: 0,
    Kind.PLACEMENT_POLICY: 1,
    Kind.FAILOVER_POLICY: 1,
    Kind.GC_POLICY: 1,
    Kind.HOST: 2,
    Kind.MICROVM: 3,
    Kind.MICROVM_GROUP: 3,
    Kind.ROLE: 4,
    Kind.ROLE_BINDING: 5,
}
_NAMESPACED = (Kind.MICROVM, Kind.MICROVM_GROUP)
_FORBIDDEN = "forbidden"
_AT_ONCE = 256
"""Items that are checked in one go, and keyed ones that are proposed at the same time."""

Model = TypeVar("Model", bound=BaseModel)


class About(NamedTuple):
    """The object that an item is about."""

    kind: Kind
    namespace: str | None
    name: str


@record
class Step:
    """One item of the request. One without a command is wrong (`problem`) or has nothing to do."""

    pointer: str
    about: About
    command: Command | None = None
    secrets: Mapping[str, SecretStr] = MappingProxyType({})
    """To be sealed into a microVM's declaration."""
    problem: problems.Problem | None = None
    outcome: Outcome | None = None


async def run(services: Services, asker: Asker, body: ApplyBody, *, dry_run: bool) -> tuple[shapes.Applied, State]:
    """The results and the state after them. Raises ApiError (atomic: for the first refusal) and LogError."""
    # Declarations are judged by the machine; only what is answered without it has to know the newest state.
    asks_state = dry_run or bool(body.delete)
    before = await reads.snapshot(services, stale=not asks_state)
    actor = asker.principal
    permitted = await _permitted(asker, await _parse(services, body, before), before)
    steps = [await _sealed(services, step, dry_run=dry_run) if step.secrets else step for step in permitted]
    order = _in_order(steps)
    commands = [command for position in order if (command := steps[position].command) is not None]
    if dry_run:
        before = dryrun.keyed(before, commands)
    if body.atomic:
        _refuse_wrong(steps)
        outcomes, after = await _together(
            services, actor, [steps[position] for position in order], body, before, dry_run
        )
    elif dry_run:
        after, outcomes = dryrun.rehearse_each(services, actor, before, commands)
    else:
        outcomes = await _each(services, actor, commands, body.idempotency_key)
        after = services.reader.state
    for position, outcome in zip(order, outcomes, strict=True):
        steps[position] = replace(steps[position], outcome=outcome)
    return shapes.Applied(dry_run=dry_run, revision=after.revision, results=[_result(s, after) for s in steps]), after


# -- the request -------------------------------------------------------------------------------------------------------


async def _parse(services: Services, body: ApplyBody, state: State) -> list[Step]:
    """The items in the request's order. Raises ApiError for an item that does not say what it is about."""
    steps: list[Step] = []
    for start in range(0, len(body.resources), _AT_ONCE):
        if start:
            # A long batch does not hold up the event loop.
            await asyncio.sleep(0)
        steps += _declarations(services, start, body.resources[start : start + _AT_ONCE])
    steps += [_deletion(f"/delete/{number}", raw, state) for number, raw in enumerate(body.delete)]
    first: dict[About, str] = {}
    for step in steps:
        if (pointer := first.setdefault(step.about, step.pointer)) != step.pointer:
            raise problems.invalid(f"{step.pointer}/name", f"is the same object as {pointer}")
    return steps


def _check(model: type[Model], pointer: str, raw: object) -> Model:
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        raise problems.from_pydantic(error, prefix=pointer) from None


def _declarations(services: Services, start: int, raws: Sequence[object]) -> list[Step]:
    """The items from number `start` on. All at once; only if one is wrong, one by one."""
    pointers = [f"/resources/{number}" for number in range(start, start + len(raws))]
    try:
        items = ITEMS.validate_python(raws)
    except ValidationError:
        return [_declaration(services, pointer, raw) for pointer, raw in zip(pointers, raws, strict=True)]
    return [_declared(services, pointer, item) for pointer, item in zip(pointers, items, strict=True)]


def _declaration(services: Services, pointer: str, raw: object) -> Step:
    identity = _check(Identity, pointer, raw)
    try:
        return _declared(services, pointer, _check(ITEM_OF[identity.kind], pointer, raw))
    except problems.ApiError as error:
        about = About(identity.kind, identity.namespace, identity.name)
        return Step(pointer=pointer, about=about, problem=error.problem)


def _declared(services: Services, pointer: str, item: Item) -> Step:
    command = item.declare(uid=services.ids.new())
    if isinstance(item, MicroVMItem):
        about = About(item.kind, item.namespace, item.name)
        return Step(pointer=pointer, about=about, command=command, secrets=item.sensitive_metadata)
    namespace = item.namespace if isinstance(item, MicroVMGroupItem) else None
    return Step(pointer=pointer, about=About(item.kind, namespace, item.name), command=command)


def _deletion(pointer: str, raw: object, state: State) -> Step:
    item = _check(Removal, pointer, raw)
    if (item.namespace is None) is (item.kind in _NAMESPACED):
        raise problems.invalid(f"{pointer}/namespace", "is required for microVMs and groups, and only for them")
    about = About(item.kind, item.namespace, item.name)
    command = Delete(kind=item.kind, namespace=item.namespace, name=item.name, reason=item.reason)
    there = reads.find_for(state, command) is not None
    return Step(pointer=pointer, about=about, command=command if there else None)


async def _permitted(asker: Asker, steps: Sequence[Step], state: State) -> list[Step]:
    """The steps, or of each that its caller may not do it."""
    # Nearly all are allowed by what is known here: that is looked up once.
    grants = asker.grants()
    permitted: list[Step] = []
    for step in steps:
        outside = [question for question in _questions(step, state) if grants.covers(question) is None]
        permitted.append(await _asked_again(asker, step, outside) if outside else step)
    return permitted


def _questions(step: Step, state: State) -> Iterator[Question]:
    """What its caller has to be allowed: what is there has its labels now, and what is declared those then."""
    if step.problem is not None:
        return
    kind, namespace, name = step.about
    labels = labels_of(state, KIND_OF[kind], namespace, name)
    if step.command is None or isinstance(step.command, Delete):
        yield about_named(Verb.DELETE, kind, namespace, name, labels or {})
        return
    if labels is not None:
        yield about_named(Verb.DECLARE, kind, namespace, name, labels)
    yield from declares(cast("Declaration", step.command))


async def _asked_again(asker: Asker, step: Step, questions: Sequence[Question]) -> Step:
    try:
        for question in questions:
            await asker.require(question)
    except problems.ApiError as error:
        pointed = problems.FieldError(pointer=step.pointer, message=error.problem.detail)
        return replace(step, command=None, problem=error.problem.model_copy(update={"errors": [pointed]}))
    return step


async def _sealed(services: Services, step: Step, *, dry_run: bool) -> Step:
    """The step with its secrets as only nodes can read them."""
    if not isinstance(step.command, DeclareMicroVM):
        return step
    try:
        command = await sealing.sealed(services, step.command, step.secrets, dry_run=dry_run, at=step.pointer)
    except problems.ApiError as error:
        return replace(step, command=None, problem=error.problem)
    return replace(step, command=command)


def _refuse_wrong(steps: Sequence[Step]) -> None:
    wrong = [step.problem for step in steps if step.problem is not None]
    if (forbidden := next((each for each in wrong if each.code == _FORBIDDEN), None)) is not None:
        raise problems.ApiError(forbidden)
    if wrong:
        errors = [error for each in wrong for error in each.errors]
        raise problems.problem("invalid", wrong[0].detail, *errors[: problems.MAX_ERRORS])


def _in_order(steps: Sequence[Step]) -> list[int]:
    """Positions of the steps that have a command, in the order in which they are to be done."""

    def rank(position: int) -> tuple[bool, int]:
        step = steps[position]
        deletes = isinstance(step.command, Delete)
        return deletes, -_RANK[step.about.kind] if deletes else _RANK[step.about.kind]

    return sorted((position for position, step in enumerate(steps) if step.command is not None), key=rank)


# -- doing it ----------------------------------------------------------------------------------------------------------


async def _together(
    services: Services, actor: Principal, steps: Sequence[Step], body: ApplyBody, before: State, dry_run: bool
) -> tuple[Sequence[Outcome], State]:
    now = services.clock.now_ms()
    batch = Batch(
        commands=[
            seal(step.command, id=services.ids.new(), at=now, actor=actor.name)
            for step in steps
            if step.command is not None
        ]
    )
    if dry_run:
        after, outcome = dryrun.rehearse(services, actor, before, batch)
    else:
        outcome = await services.proposer.propose(
            batch, actor=actor.name, key=body.idempotency_key, timeout_s=services.settings.write_timeout_s
        )
        after = services.reader.state
    if isinstance(outcome, Rejected):
        raise problems.from_rejected(outcome, prefix=steps[outcome.part].pointer if outcome.part is not None else "")
    return outcome.parts, after


async def _each(
    services: Services, actor: Principal, commands: Sequence[Command], key: str | None
) -> Sequence[Outcome]:
    """One entry for all; where a key is given, each is proposed under a key of its own."""
    timeout_s = services.settings.write_timeout_s
    if key is None:
        return await services.proposer.propose_each(commands, actor=actor.name, timeout_s=timeout_s)
    outcomes: list[Outcome] = []
    for start in range(0, len(commands), _AT_ONCE):
        outcomes += await asyncio.gather(
            *(
                services.proposer.propose(command, actor=actor.name, key=f"{key}/{number}", timeout_s=timeout_s)
                for number, command in enumerate(commands[start : start + _AT_ONCE], start)
            )
        )
    return outcomes


def _result(step: Step, state: State) -> shapes.ApplyResult:
    outcome, refused = step.outcome, step.problem
    if isinstance(outcome, Rejected):
        refused = problems.from_rejected(outcome, prefix=step.pointer).problem
    if refused is not None:
        change = "refused"
    elif isinstance(outcome, Applied):
        change = Change.DELETED if isinstance(step.command, Delete) else outcome.change
    else:
        change = Change.UNCHANGED
    about = step.about
    found = reads.find(state, about.kind, about.namespace, about.name)
    return shapes.ApplyResult(
        kind=about.kind,
        namespace=about.namespace,
        name=about.name,
        outcome=change,
        revision=found.meta.intent_revision if found is not None else state.revision,
        problem=refused,
    )
