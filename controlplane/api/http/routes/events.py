"""What happened lately, from the state itself, so that every node tells the same (`machine.recent_events`).

Who may read an object sees its events. What is gone has no labels any more: its events are seen by whom no label
restricts.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Annotated

from fastapi import APIRouter, Query
from starlette.responses import Response

from controlplane.api.http import event_shapes as shapes
from controlplane.api.http import params, problems, reads
from controlplane.api.http.access import Asker, Asking, about_named, about_object
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.times import iso
from controlplane.machine.events import standing
from controlplane.machine.recent_events import KEPT, WHOLE, RecentEvents
from controlplane.machine.state import State
from controlplane.model.access import Verb
from controlplane.model.event_records import EventRecord, Place, Reason
from controlplane.model.types import Kind, record

_AT_ONCE = 500
"""Events that are looked at before others in the event loop have their turn."""
_ID = re.compile(r"^(\d{1,16})\.(\d{1,9})$")

router = APIRouter(tags=["Events"], route_class=StrictRoute)


@record
class _Wanted:
    asker: Asker
    kind: Kind | None
    namespace: str | None
    name: str | None
    host: str | None
    reasons: frozenset[Reason]
    type: shapes.EventClass | None
    since: int

    def has(self, each: EventRecord, state: State) -> bool:
        return (
            each.at >= self.since
            and self.kind in (None, each.kind)
            and self.namespace in (None, each.namespace)
            and self.name in (None, each.name)
            and self.host in (None, each.host)
            and (not self.reasons or each.reason in self.reasons)
            and self.type in (None, _type_of(each))
            and self._sees(each, state)
        )

    def _sees(self, each: EventRecord, state: State) -> bool:
        found = standing(state, each.kind, each.namespace, each.name, each.uid)
        question = (
            about_object(Verb.READ, found, state)
            if found is not None
            else about_named(Verb.READ, each.kind, each.namespace, each.name, {})
        )
        return self.asker.allows(question, state)


@router.get("/events", response_model=shapes.EventList)
async def list_events(
    asker: Asking,
    state: reads.Snapshot,
    kind: Annotated[Kind | None, Query(description="Only about this kind.")] = None,
    namespace: params.NamespaceFilter = None,
    name: params.NameFilter = None,
    host: Annotated[
        str | None,
        Query(pattern=params.NAME_PATTERN, description="Only about this host, and what is or was on it."),
    ] = None,
    reason: Annotated[list[Reason], Query(max_length=64, description="Only these; repeat it to ask for several.")] = [],  # noqa: B006
    type_: Annotated[shapes.EventClass | None, Query(alias="type")] = None,
    after_revision: Annotated[int, Query(alias="from", ge=0, le=2**53, description="Only above this revision.")] = 0,
    since: Annotated[int, Query(ge=0, le=2**53, description="Milliseconds since the Unix epoch.")] = 0,
    newest: Annotated[bool, Query(description="The newest `limit` that match, instead of the first.")] = False,
    limit: params.LimitParam = params.DEFAULT_LIMIT,
    after: params.ContinueParam = None,
) -> Response:
    """Events in the order in which they came about. `continue` is the id of an event to go on after."""
    wanted = _Wanted(
        asker=asker,
        kind=kind,
        namespace=namespace,
        name=name,
        host=host,
        reasons=frozenset(reason),
        type=type_,
        since=since,
    )
    start = max((after_revision, WHOLE), _place(after))
    positions = state.recent.after(start)
    found: list[EventRecord] = []
    for number, position in enumerate(reversed(positions) if newest else positions, 1):
        if wanted.has(each := state.recent.at(position), state):
            found.append(each)
            if len(found) > limit:
                break
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    more = len(found) > limit
    page = found[:limit]
    if newest:
        page.reverse()
    recent = state.recent
    oldest = recent.at(recent.head).at if len(recent) else None
    document = shapes.EventList(
        items=list(_shapes(page)),
        complete=recent.holds_all_after(start) or _is_of_before(recent, since),
        more=more,
        held=len(recent),
        held_at_most=KEPT,
        oldest_at=iso(oldest),
        forgotten_revision=recent.forgotten[0],
        revision=state.revision,
        continue_=_id(page[-1]) if more and not newest else None,
    )
    return respond(document, state)


def _is_of_before(recent: RecentEvents, since: int) -> bool:
    """Whether the oldest event that is held is of before `since`, so that none of after it is forgotten."""
    return bool(len(recent)) and recent.at(recent.head).at < since


def _place(after: str | None) -> Place:
    if after is None:
        return (0, 0)
    match = _ID.fullmatch(after)
    if match is None:
        raise problems.invalid("/query/continue", "must be the id of an event, such as 42.0")
    return int(match[1]), int(match[2])


def _id(event: EventRecord) -> str:
    return f"{event.revision}.{event.number}"


def _type_of(event: EventRecord) -> shapes.EventClass:
    return "warning" if event.is_warning else "normal"


def _shapes(found: list[EventRecord]) -> Iterator[shapes.EventShape]:
    for each in found:
        yield shapes.EventShape(
            id=_id(each),
            revision=each.revision,
            at=iso(each.at),
            kind=each.kind,
            namespace=each.namespace,
            name=each.name,
            uid=each.uid,
            host=each.host,
            type=_type_of(each),
            reason=each.reason,
            message=each.message,
            actor=each.actor,
        )
