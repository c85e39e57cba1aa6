"""The straight way of a request that is as expected: from its path to its handler, around the framework's layers.

Whichever way it goes, a request of a route first passes the rule of that route (`access`).

FastAPI describes the API and says what is wrong with a request, and its layers cost more than all our work on a request
that is right. So a request whose route is known and whose arguments are sure (see `plan`) goes to its handler from
here. Every other one goes to the framework as it came: nothing has been done with it before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor
from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.routing import compile_path
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.http import problems, refusals
from controlplane.api.http.access import Access
from controlplane.api.http.access_rules import needs_of
from controlplane.api.http.asgi import headers_of, replay
from controlplane.api.http.plan import Arguments, Asked, Plan, UnsureError
from controlplane.api.http.routing import query_names
from controlplane.ports import StateReader


class Straight:
    """An ASGI application in front of `framework`, the rest of `app`. `routes` are (prefix, route) in its order."""

    def __init__(
        self, app: FastAPI, framework: ASGIApp, routes: Iterable[tuple[str, APIRoute]], reader: StateReader
    ) -> None:
        self._app = app
        self._access = Access(reader)
        self._reader = reader
        self._framework = framework
        self._routes: dict[tuple[str, int], list[_Way]] = {}
        """By method and number of slashes: no parameter of a path holds one."""
        for prefix, route in routes:
            way = _Way(prefix, route)
            for method in route.methods or ():
                self._routes.setdefault((method, way.slashes), []).append(way)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._find(scope["method"], scope["path"]) if scope["type"] == "http" else None
        if found is None:
            await self._framework(scope, receive, send)
        else:
            await self._serve(*found, scope, receive, send)

    def route_of(self, method: str, path: str) -> tuple[str, Mapping[str, str]] | None:
        """`METHOD /route` without the prefix of the API, and the parameters in the path; None of what is no route."""
        found = self._find(method, path)
        return (f"{method} {found[0].route}", found[1]) if found is not None else None

    def methods_at(self, path: str) -> list[str]:
        """Every method that some route of this path has."""
        return sorted({method for method, _ in self._routes if self._find(method, path) is not None})

    def _find(self, method: str, path: str) -> tuple[_Way, dict[str, str]] | None:
        for way in self._routes.get((method, path.count("/")), ()):
            if (found := way.pattern.match(path)) is not None:
                return way, found.groupdict()
        return None

    async def _serve(self, way: _Way, path: dict[str, str], scope: Scope, receive: Receive, send: Send) -> None:
        # The whole body: see `limits`.
        body: bytes = (await receive())["body"]
        scope["app"] = self._app
        try:
            await self._access.enter(scope, way.needs, path)
        except refusals.REFUSALS as error:
            await problems.answer(refusals.refusal_of(error, self._reader))(scope, receive, send)
            return
        try:
            arguments = way.read(path, Request(scope, receive), body)
        except UnsureError:
            await self._framework(scope, replay(body, receive), send)
            return
        try:
            response = await way.plan.call(arguments)
        except refusals.REFUSALS as error:
            response = problems.answer(refusals.refusal_of(error, self._reader))
        await response(scope, receive, send)


class _Way:
    """One route. Raises TypeError for one that is declared in a way that no plan is made of, or that has no rule."""

    def __init__(self, prefix: str, route: APIRoute) -> None:
        path = prefix + route.path
        (self.needs,) = {needs_of(method, route.path) for method in route.methods or ()}
        self.route = route.path
        self.slashes = path.count("/")
        self.pattern, _, convertors = compile_path(path)
        if not all(isinstance(each, StringConvertor) for each in convertors.values()):
            raise TypeError(f"{path} has parameters that are no strings")
        self.plan = Plan(route.dependant)
        self._known = frozenset(query_names(route.dependant))

    def read(self, path: dict[str, str], request: Request, body: bytes) -> Arguments:
        """Raises UnsureError."""
        scope = request.scope
        query = QueryParams(scope["query_string"]) if scope["query_string"] else None
        if query is not None and not self._known.issuperset(query):
            raise UnsureError
        return self.plan.read(Asked(request, path, query, headers_of(scope), body))
