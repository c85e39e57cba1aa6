"""The application: routers, middlewares and problem handlers put together around the ports.

A request goes: context (id, log, last resort) -> authentication -> body limits -> router -> handler.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse

from controlplane.api.http import openapi, problems
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
    snapshots,
    watch,
)
from controlplane.api.http.routing import check_routes
from controlplane.api.http.services import Services
from controlplane.api.http.settings import ApiSettings
from controlplane.api.http.watch import WatchCounter
from controlplane.ports import (
    AgentLink,
    BackupStatus,
    Clock,
    CompactedError,
    Ids,
    Log,
    LogAdmin,
    LogError,
    Proposer,
    SnapshotSource,
    StateReader,
)

PREFIX = "/api/v2"
_ROUTERS = (namespaces, hosts, policies, microvms, actions, operations, batch, watch, drift, cluster, raft, snapshots)


def create_app(
    *,
    reader: StateReader,
    proposer: Proposer,
    agents: AgentLink,
    log: Log,
    members: LogAdmin,
    snapshots: SnapshotSource,
    backup: Callable[[], BackupStatus | None],
    identity: Authenticator,
    clock: Clock,
    ids: Ids,
    settings: ApiSettings,
) -> FastAPI:
    """API v2 over the given ports; `backup` tells of scheduled backups, None where there are none.

    `app.state.services.closing` ends everything that only waits.
    """
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
        snapshots=snapshots,
        backup=backup,
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
    for module in _ROUTERS:
        check_routes(module.router)
        app.include_router(module.router, prefix=PREFIX)
    check_routes(cluster.health)
    app.include_router(cluster.health)
    for name in ("openapi.json", "docs"):
        app.add_route(f"/{name}", partial(_redirect, f"{PREFIX}/{name}"), include_in_schema=False)
    app.openapi = partial(openapi.describe, app, PREFIX)


async def _redirect(target: str, _request: object) -> RedirectResponse:
    return RedirectResponse(target)
