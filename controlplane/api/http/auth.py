"""Who asks: a bearer token, checked before anything of the request is read or decided.

It is a middleware and not a dependency so that a path is closed unless it is named here as open, and so that a body is
only read for someone known.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol, cast

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.http import problems, refusals, standing
from controlplane.api.http.asgi import header_of
from controlplane.identity.principal import Principal, UnauthenticatedError
from controlplane.ports import LogError, StateReader

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
OPEN_PREFIX = "/api/v2/providers/"
"""Releases of the Terraform provider: `terraform init` comes before any credential, and they are no secret."""


def is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_PREFIX)


class Authenticator(Protocol):
    async def authenticate(self, bearer: str) -> Principal:
        """Who the token belongs to; takes the same time whichever it is.

        Raises UnauthenticatedError, and NoLeaderError where only a newer state could tell.
        """
        ...


class AuthMiddleware:
    def __init__(self, app: ASGIApp, *, identity: Authenticator, reader: StateReader) -> None:
        self._app = app
        self._identity = identity
        self._reader = reader

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        authenticate = partial(self._principal, header_of(scope, b"authorization"))
        try:
            principal = await authenticate()
        except UnauthenticatedError as error:
            await problems.answer(problems.problem("unauthenticated", str(error)))(scope, receive, send)
        except LogError as error:
            await problems.answer(refusals.refusal_of(error, self._reader))(scope, receive, send)
        else:
            scope.setdefault("state", {})["principal"] = principal
            standing.remember(scope, authenticate)
            await self._app(scope, receive, send)

    async def _principal(self, header: str) -> Principal:
        scheme, _, token = header.partition(" ")
        if not token:
            raise UnauthenticatedError("the request carries no bearer token")
        if scheme.lower() != "bearer":
            raise UnauthenticatedError("the authorization scheme must be Bearer")
        return await self._identity.authenticate(token.strip())


async def principal_of(request: Request) -> Principal:
    """Whom the middleware found."""
    return cast("Principal", request.scope["state"]["principal"])
