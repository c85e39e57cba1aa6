"""Many declarations in one request."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import batch, params, shapes
from controlplane.api.http.access import Asking
from controlplane.api.http.answers import respond
from controlplane.api.http.declarations import ApplyBody
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import With

router = APIRouter(tags=["Batches"], route_class=StrictRoute)


@router.post("/apply", response_model=shapes.Applied)
async def apply(services: With, asker: Asking, body: ApplyBody, dry_run: params.DryRunParam = False) -> Response:
    """Declare and delete many objects at once."""
    document, state = await batch.run(services, asker, body, dry_run=dry_run)
    return respond(document, state)
