"""The application: routers, middlewares and problem handlers put together around the ports.

A request goes: context (id, origin, log, last resort) -> audit trail -> rate of strangers -> authentication -> rate of
the identity -> body limits -> the rule of its route -> straight to its handler, or through the framework to it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.http import openapi, problems, refusals
from controlplane.api.http.auth import Authenticator, AuthMiddleware
from controlplane.api.http.context import ContextMiddleware
from controlplane.api.http.limits import BodyLimitMiddleware
from controlplane.api.http.rates import Buckets, IdentityRateMiddleware, StrangerRateMiddleware
from controlplane.api.http.releases import Releases
from controlplane.api.http.routes import (
    actions,
    adoption,
    api_tokens,
    audit,
    auth,
    authority,
    batch,
    cluster,
    declared,
    drift,
    events,
    failover,
    gc,
    groups,
    hosts,
    joining,
    metrics,
    microvms,
    operations,
    providers,
    purging,
    raft,
    secrets,
    snapshots,
    watch,
)
from controlplane.api.http.routing import strict_routes
from controlplane.api.http.services import Services
from controlplane.api.http.settings import ApiSettings
from controlplane.api.http.straight import Straight
from controlplane.api.http.trail import Trail, TrailMiddleware
from controlplane.api.http.watch import WatchCounter
from controlplane.machine.state import State
from controlplane.model.gc import Trigger
from controlplane.model.resources import Host
from controlplane.ports import (
    AgentLink,
    BackupStatus,
    Clock,
    Ids,
    Log,
    LogAdmin,
    NodeLink,
    PlanItem,
    Proposer,
    SnapshotSource,
    StateReader,
)
from controlplane.ports.issuance import Issuer
from controlplane.ports.secrets import Vault

PREFIX = "/api/v2"
_ROUTERS = (
    declared,
    hosts,
    api_tokens,
    auth,
    microvms,
    groups,
    actions,
    operations,
    batch,
    watch,
    events,
    drift,
    cluster,
    failover,
    raft,
    snapshots,
    gc,
    audit,
    metrics,
    adoption,
    purging,
    joining,
    authority,
    providers,
    secrets,
)


def create_app(
    *,
    reader: StateReader,
    proposer: Proposer,
    agents: AgentLink,
    nodes: NodeLink,
    log: Log,
    members: LogAdmin,
    snapshots: SnapshotSource,
    forecast: Callable[[State, Host], Sequence[PlanItem]],
    backup: Callable[[], BackupStatus | None],
    gc_refused: Counter[Trigger],
    identity: Authenticator,
    clock: Clock,
    ids: Ids,
    settings: ApiSettings,
    signer: Issuer | None = None,
    vault: Vault | None = None,
) -> Application:
    """API v2 over the given ports. `forecast` tells what a host's agent would do if it came back; `backup` tells of
    scheduled backups, None where there are none; `gc_refused` is what this node's runner counts.

    `app.state.services.closing` ends everything that only waits; `app.state.trail` is to be run beside it.
    """
    app = Application(
        title=openapi.TITLE,
        version=settings.version,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=f"{PREFIX}/docs",
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = Services(
        reader=reader,
        proposer=proposer,
        agents=agents,
        nodes=nodes,
        log=log,
        members=members,
        snapshots=snapshots,
        forecast=forecast,
        backup=backup,
        gc_refused=gc_refused,
        clock=clock,
        ids=ids,
        settings=settings,
        releases=Releases(settings.providers_dir),
        signer=signer,
        vault=vault,
    )
    app.state.watchers = WatchCounter()
    routes = _add_routes(app)
    for refusal in refusals.REFUSALS:
        app.add_exception_handler(refusal, partial(refusals.handle_refusal, reader))
    app.add_exception_handler(RequestValidationError, problems.handle_validation)
    app.add_exception_handler(Exception, _leave_it_to_the_context)
    straight = Straight(app, app.answer, routes, reader)
    app.add_exception_handler(HTTPException, partial(problems.handle_http, straight.methods_at))
    bounded = BodyLimitMiddleware(straight, settings=settings)
    paced = IdentityRateMiddleware(bounded, buckets=Buckets(settings.identity_rate, clock))
    known = AuthMiddleware(paced, identity=identity, reader=reader)
    met = StrangerRateMiddleware(known, buckets=Buckets(settings.stranger_rate, clock))
    app.state.trail = Trail(node=settings.node, proposer=proposer, clock=clock)
    noted = TrailMiddleware(met, trail=app.state.trail, route_of=straight.route_of)
    app.first = ContextMiddleware(noted, reader=reader, ids=ids)
    return app


class Application(FastAPI):
    """The framework with our layers in front of it."""

    first: ASGIApp
    """The first of them."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.first(scope, receive, send)

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """What the framework itself does with a request."""
        await super().__call__(scope, receive, send)


def _add_routes(app: FastAPI) -> list[tuple[str, APIRoute]]:
    """Gives (prefix, route) of each."""
    routes: list[tuple[str, APIRoute]] = []
    for router, prefix in (*((module.router, PREFIX) for module in _ROUTERS), (cluster.health, "")):
        routes += [(prefix, route) for route in strict_routes(router)]
        app.include_router(router, prefix=prefix)
    for name in ("openapi.json", "docs"):
        app.add_route(f"/{name}", partial(_redirect, f"{PREFIX}/{name}"), include_in_schema=False)
    app.openapi = partial(openapi.describe, app, PREFIX)
    return routes


async def _leave_it_to_the_context(_request: Request, error: Exception) -> Response:
    """The framework's own last resort would answer in plain text before ours sees the error."""
    raise error


async def _redirect(target: str, _request: object) -> RedirectResponse:
    return RedirectResponse(target)
