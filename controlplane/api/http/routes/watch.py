"""The stream of changes."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.http import params, problems, reads
from controlplane.api.http.access import Asking
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import With
from controlplane.api.http.watch import Filter, WatchResponse
from controlplane.model.types import Kind

router = APIRouter(tags=["Watch"], route_class=StrictRoute)
_REVISION_LIMIT = 2**53
_EVENT = {
    "type": "object",
    "description": "One server-sent event.",
    "properties": {
        "id": {
            "type": "string",
            "description": "The revision; of several events of one revision, the last one has it.",
        },
        "event": {"enum": ["added", "modified", "deleted", "error"]},
        "data": {"type": "string", "contentMediaType": "application/json"},
    },
    "required": ["event", "data"],
}


@router.get(
    "/watch",
    response_class=Response,
    responses={
        200: {
            "description": "Server-sent events `added`, `modified`, `deleted`, each with `id` the revision and `data` a"
            " WatchData document; comments as heartbeats; `error` with a Problem before the stream ends.",
            "content": {"text/event-stream": {"schema": _EVENT}},
        }
    },
)
async def watch(
    services: With,
    asker: Asking,
    request: Request,
    state: reads.Snapshot,
    after: Annotated[
        int | None,
        Query(alias="from", ge=0, le=_REVISION_LIMIT, description="Events above this revision; without it, from now."),
    ] = None,
    last_event_id: Annotated[
        int | None, Header(alias="last-event-id", ge=0, le=_REVISION_LIMIT, description="As `from`, for reconnects.")
    ] = None,
    kind: Annotated[Kind | None, Query(description="Only this kind.")] = None,
    namespace: params.NamespaceFilter = None,
) -> Response:
    """Every change, as server-sent events."""
    start = last_event_id if last_event_id is not None else after
    if start is not None and start > state.revision:
        raise problems.invalid("/query/from", f"revision {start} is yet to come; the present one is {state.revision}")
    begin = state.revision if start is None else start
    return WatchResponse(
        services,
        request.app.state.watchers,
        begin,
        Filter(asker=asker, kind=kind, namespace=namespace),
        stale=reads.is_stale(request),
    )
