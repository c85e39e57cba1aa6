"""The audit chain: who changed or tried what, from where, and what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Annotated

import msgspec
from fastapi import APIRouter, Query
from starlette.responses import Response

from controlplane.api.http import audit_shapes as shapes
from controlplane.api.http import params, problems, reads
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.machine.state import State
from controlplane.model.audit import AuditOutcome, AuditRecord
from controlplane.model.types import record

_AT_ONCE = 500
"""Records that are looked at before others in the event loop have their turn."""
Text = Annotated[str | None, Query(max_length=256)]

router = APIRouter(tags=["Audit"], route_class=StrictRoute)


@record
class _Wanted:
    actor: str | None
    action: str | None
    kind: str | None
    namespace: str | None
    name: str | None
    outcome: AuditOutcome | None
    since: int

    def has(self, each: AuditRecord) -> bool:
        return (
            each.at >= self.since
            and self.actor in (None, each.actor)
            and self.action in (None, each.action)
            and self.kind in (None, each.kind)
            and self.namespace in (None, each.namespace)
            and self.name in (None, each.name)
            and self.outcome in (None, each.outcome)
        )


@router.get("/audit", response_model=shapes.AuditList)
async def list_audit(
    state: reads.Snapshot,
    actor: Text = None,
    action: Text = None,
    kind: Text = None,
    namespace: Text = None,
    name: Text = None,
    outcome: AuditOutcome | None = None,
    since: Annotated[int, Query(ge=0, le=2**53, description="Milliseconds since the Unix epoch.")] = 0,
    newest: Annotated[bool, Query(description="The newest `limit` that match, instead of the first.")] = False,
    limit: params.LimitParam = params.DEFAULT_LIMIT,
    after: params.ContinueParam = None,
) -> Response:
    """Records in the order of the chain. `continue` is the sequence to go on after; it may be made up."""
    wanted = _Wanted(
        actor=actor, action=action, kind=kind, namespace=namespace, name=name, outcome=outcome, since=since
    )
    begin = max(_sequence(after) + 1, state.audit_first)
    order: Iterator[int] = iter(range(begin, state.audit_head + 1))
    if newest:
        order = reversed(range(begin, state.audit_head + 1))
    found: list[AuditRecord] = []
    for number, sequence in enumerate(order, 1):
        if wanted.has(each := state.audit_at(sequence)):
            found.append(each)
            if len(found) == limit:
                break
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    if newest:
        found.reverse()
    more = not newest and len(found) == limit and found[-1].sequence < state.audit_head
    return respond(_list(state, found, str(found[-1].sequence) if more else None), state)


def _sequence(after: str | None) -> int:
    if after is None:
        return 0
    if not (after.isascii() and after.isdigit() and len(after) <= 16):
        raise problems.invalid("/query/continue", "must be the sequence of a record")
    return int(after)


def _list(state: State, found: list[AuditRecord], following: str | None) -> shapes.AuditList:
    head = state.audit_at(state.audit_head) if state.audit_head else None
    return shapes.AuditList(
        items=[shapes.AuditRecordShape.model_validate(msgspec.structs.asdict(each)) for each in found],
        head=shapes.AuditHead(sequence=head.sequence, hash=head.hash) if head is not None else None,
        first=state.audit_first if head is not None else 0,
        revision=state.revision,
        following=following,
    )
