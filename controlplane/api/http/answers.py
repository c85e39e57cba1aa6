"""Documents to HTTP answers: JSON bytes straight from the model, with the revision and the entity tag."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pydantic import BaseModel
from starlette.responses import Response

from controlplane.api.http import shape
from controlplane.api.http.context import REVISION_HEADER
from controlplane.machine.state import State

Item = TypeVar("Item")
_AT_ONCE = 50
"""Items of a list that are translated before others in the event loop have their turn."""


def respond(
    document: BaseModel, state: State, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`state` is the snapshot that the document was made from: the answer's `Flintlock-Revision`."""
    sent = {REVISION_HEADER: str(state.revision), **(headers or {})}
    if isinstance(document, shape.Resource):
        sent["ETag"] = f'"{document.revision}"'
    return Response(document.model_dump_json(), status_code=status, media_type="application/json", headers=sent)


async def respond_list(
    items: Sequence[Item], view: Callable[[State, Item], BaseModel], state: State, following: str | None
) -> Response:
    """One page of a list; a long one does not hold up the event loop. `following` is the next page's token."""
    parts: list[str] = []
    for number, item in enumerate(items, 1):
        parts.append(view(state, item).model_dump_json())
        if number % _AT_ONCE == 0:
            await asyncio.sleep(0)
    body = f'{{"items":[{",".join(parts)}],"revision":{state.revision},"continue":{json.dumps(following)}}}'
    return Response(body, media_type="application/json", headers={REVISION_HEADER: str(state.revision)})
