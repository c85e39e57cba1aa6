"""Who asks: a bearer token, checked before anything of the request is read or decided.

It is a middleware and not a dependency so that a path is closed unless it is named here as open, and so that a body is
only read for someone known.
"""

from __future__ import annotations

from typing import Protocol, cast

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.http import problems
from controlplane.api.http.asgi import header_of

OPEN_PATHS = frozenset(
    {
        "/healthz",
        "/readyz",
        "/openapi.json",
        "/docs",
        "/api/v2/openapi.json",
        "/api/v2/docs",
        "/api/v2/join",
        "/api/v2/join/authority",
    }
)
"""Liveness for probes, the description of the API, which holds no data, and joining, which has tokens of its own."""


class Principal(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def roles(self) -> frozenset[str]: ...
    @property
    def user(self) -> str | None: ...
    @property
    def groups(self) -> frozenset[str]: ...


class Authenticator(Protocol):
    def authenticate(self, bearer: str) -> Principal | None:
        """Who the token belongs to; takes the same time whichever it is. None: nobody."""
        ...


class AuthMiddleware:
    def __init__(self, app: ASGIApp, *, identity: Authenticator) -> None:
        self._app = app
        self._identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        scheme, _, token = header_of(scope, b"authorization").partition(" ")
        if not token:
            refusal = problems.problem("unauthenticated", "the request carries no bearer token")
        elif scheme.lower() != "bearer":
            refusal = problems.problem("unauthenticated", "the authorization scheme must be Bearer")
        elif (principal := self._identity.authenticate(token.strip())) is None:
            refusal = problems.problem("unauthenticated", "the bearer token is not known")
        else:
            scope.setdefault("state", {})["principal"] = principal
            await self._app(scope, receive, send)
            return
        await problems.answer(refusal)(scope, receive, send)


async def principal_of(request: Request) -> Principal:
    """Whom the middleware found."""
    return cast("Principal", request.state.principal)
