"""Operations: the work that accepted commands started."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from controlplane.api.http import params, problems, reads, shapes, views
from controlplane.api.http.access import Asking, about_operation
from controlplane.api.http.answers import respond, respond_list
from controlplane.api.http.routing import StrictRoute

router = APIRouter(tags=["Operations"], route_class=StrictRoute)


@router.get("/operations", response_model=shapes.OperationList)
async def list_operations(
    asker: Asking,
    state: reads.Snapshot,
    namespace: params.NamespaceFilter = None,
    limit: params.LimitParam = params.DEFAULT_LIMIT,
    after: params.ContinueParam = None,
) -> Response:
    """List them, the oldest first; ended ones are forgotten after a while."""
    items, following = reads.page(
        state.operations.items(),
        limit=limit,
        after=after,
        keep=lambda item: (
            (namespace is None or item.target.namespace == namespace) and asker.sees_operation(item, state)
        ),
    )
    return await respond_list(items, lambda _, item: views.operation(item), state, following)


@router.get("/operations/{id}", response_model=shapes.OperationShape)
async def read_operation(asker: Asking, state: reads.Snapshot, operation_id: params.OperationIdParam) -> Response:
    """Read one operation."""
    found = state.operations.get(operation_id)
    if found is None:
        raise problems.not_found("operation", operation_id, pointer="/id")
    await asker.require(about_operation(found, state))
    return respond(views.operation(found), state)
