"""The application: routers, middlewares and problem handlers put together around the ports.

A request goes: context (id, log, last resort) -> authentication -> body limits -> router -> handler.
"""

from __future__ import annotations

from functools import partial

from fastapi import APIRouter, Depends, FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from controlplane.api.http import openapi, params, problems
from controlplane.api.http.auth import Authenticator, AuthMiddleware
from controlplane.api.http.context import ContextMiddleware
from controlplane.api.http.limits import BodyLimitMiddleware
from controlplane.api.http.routes import (
    actions,
    batch,
    cluster,
    drift,
    hosts,
    microvms,
    namespaces,
    operations,
    policies,
    raft,
    watch,
)
from controlplane.api.http.services import Services
from controlplane.api.http.settings import ApiSettings
from controlplane.api.http.watch import WatchCounter
from controlplane.ports import AgentLink, Clock, CompactedError, Ids, Log, LogAdmin, LogError, Proposer, StateReader

PREFIX = "/api/v2"
_ROUTERS = (namespaces, hosts, policies, microvms, actions, operations, batch, watch, drift, cluster, raft)


def create_app(
    *,
    reader: StateReader,
    proposer: Proposer,
    agents: AgentLink,
    log: Log,
    members: LogAdmin,
    identity: Authenticator,
    clock: Clock,
    ids: Ids,
    settings: ApiSettings,
) -> FastAPI:
    """API v2 over the given ports. `app.state.services.closing` ends everything that only waits."""
    app = FastAPI(
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
        log=log,
        members=members,
        clock=clock,
        ids=ids,
        settings=settings,
    )
    app.state.watchers = WatchCounter()
    _add_routes(app)
    app.add_exception_handler(problems.ApiError, problems.handle_api_error)
    app.add_exception_handler(LogError, problems.handle_log_error)
    app.add_exception_handler(CompactedError, problems.handle_compacted)
    app.add_exception_handler(RequestValidationError, problems.handle_validation)
    app.add_exception_handler(HTTPException, problems.handle_http)
    # The last one added sees a request first.
    app.add_middleware(BodyLimitMiddleware, settings=settings)
    app.add_middleware(AuthMiddleware, identity=identity)
    app.add_middleware(ContextMiddleware, reader=reader, ids=ids)
    return app


def _add_routes(app: FastAPI) -> None:
    known_query = Depends(params.refuse_unknown_query)
    # The middleware has let the request in already; this is how OpenAPI comes to say so.
    bearer = Depends(HTTPBearer(auto_error=False, scheme_name="token", description="A token of this cluster."))
    api = APIRouter(prefix=PREFIX, dependencies=[known_query, bearer])
    for module in _ROUTERS:
        api.include_router(module.router)
    app.include_router(api)
    app.include_router(cluster.health, dependencies=[known_query])
    for name in ("openapi.json", "docs"):
        app.add_route(f"/{name}", partial(_redirect, f"{PREFIX}/{name}"), include_in_schema=False)
    app.openapi = partial(openapi.describe, app)


async def _redirect(target: str, _request: object) -> RedirectResponse:
    return RedirectResponse(target)
