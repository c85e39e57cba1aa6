"""The route class of the API: a request is checked for unknown query parameters before anything else of it is read.

It is a route and not a dependency because what a route knows is known when the application is made; a dependency would
be resolved anew for every request, as each costs more than most handlers.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from fastapi import APIRouter
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.http import problems
from controlplane.api.http.access import ASKER

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class StrictRoute(APIRoute):
    """Refuses a query parameter that the handler does not have: a misspelt `?dry_run` must not turn into a write."""

    def get_route_handler(self) -> Handler:
        handler = super().get_route_handler()
        known = frozenset(query_names(self.dependant))

        async def strict(request: Request) -> Response:
            # Fail closed. Open routes have nobody to ask for.
            if hasattr(request.state, "principal") and not hasattr(request.state, ASKER):
                raise RuntimeError(f"{request.url.path} was reached around its rule")
            if request.scope["query_string"]:
                _refuse_unknown(request, known)
            return await handler(request)

        return strict


def strict_routes(router: APIRouter) -> list[StrictRoute]:
    """The routes of `router`. Raises TypeError for one that would take any query."""
    lax = [str(route) for route in router.routes if not isinstance(route, StrictRoute)]
    if lax:
        raise TypeError(f"made by a router without route_class=StrictRoute: {', '.join(lax)}")
    return [route for route in router.routes if isinstance(route, StrictRoute)]


def _refuse_unknown(request: Request, known: frozenset[str]) -> None:
    unknown = sorted(set(request.query_params) - known)
    if unknown:
        allowed = ", ".join(sorted(known)) or "none"
        errors = [
            problems.FieldError(
                pointer=f"/query/{problems.escape(name)}", message=f"unknown parameter; known here: {allowed}"
            )
            for name in unknown[: problems.MAX_ERRORS]
        ]
        raise problems.problem("invalid", f"unknown query parameter {unknown[0]!r}", *errors)


def query_names(dependant: Dependant) -> Iterator[str]:
    """Of the query parameters of a function and of what it depends on."""
    yield from (field.alias for field in dependant.query_params)
    for inner in dependant.dependencies:
        yield from query_names(inner)
