"""The Terraform provider for whoever runs `terraform init`, by Terraform's network mirror protocol.

Below `/providers/HOST/NAMESPACE/TYPE/` lie `index.json`, which lists the versions, `VERSION.json`, which names the
archive of each platform with its hashes, and the archives. Terraform comes here before it has any credential, so these
routes are open; what they give is public, read-only, the same for everybody, and bounded: few downloads at a time, each
within a time.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Path
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.types import Receive, Scope, Send

from controlplane.api.http import problems
from controlplane.api.http.releases import MAX_DOWNLOADS, Archive, Releases
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import With

DOWNLOAD_S = 300.0
_PUBLIC = {"Cache-Control": "public, max-age=60"}
_DOCUMENT = r"^(index\.json|[0-9A-Za-z.-]{1,64}\.json|terraform-provider-flintlock_[0-9A-Za-z._-]{1,96}\.zip)$"
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/zip": {"schema": {"type": "string", "format": "binary"}},
        }
    }
}

_log = structlog.get_logger("api.providers")
router = APIRouter(tags=["Terraform provider"], route_class=StrictRoute)


@router.get(
    "/providers/registry.terraform.io/microscaler/flintlock/{document}",
    response_class=Response,
    responses=_CONTENT,
)
async def read_mirror(services: With, document: Annotated[str, Path(pattern=_DOCUMENT)]) -> Response:
    """What a network mirror holds of the provider: `index.json`, `VERSION.json`, or an archive."""
    archives = await asyncio.to_thread(services.releases.archives)
    if document == "index.json" and archives:
        return JSONResponse({"versions": {each.version: {} for each in archives}}, headers=_PUBLIC)
    if document.endswith(".json"):
        chosen = [each for each in archives if f"{each.version}.json" == document]
        if told := await asyncio.to_thread(_platforms, services.releases, chosen):
            return JSONResponse({"archives": told}, headers=_PUBLIC)
    archive = next((each for each in archives if each.path.name == document), None)
    if archive is None:
        raise problems.problem("not_found", f"this node has no {document} of the provider")
    if services.releases.places.locked():
        raise problems.problem("too_many_downloads", f"{MAX_DOWNLOADS} are under way", retry_after_s=5)
    return _Download(archive, services.releases.places)


def _platforms(releases: Releases, archives: list[Archive]) -> dict[str, Any]:
    """What can be served of them."""
    told: dict[str, Any] = {}
    for each in archives:
        try:
            told[each.platform] = {"url": each.path.name, "hashes": releases.hashes(each)}
        except (OSError, ValueError) as problem:
            _log.error("provider.archive_cannot_be_served", file=str(each.path), error=str(problem))
    return told


class _Download(FileResponse):
    """Holds one of the places for as long as it takes, and no longer than `DOWNLOAD_S`."""

    def __init__(self, archive: Archive, places: asyncio.Semaphore) -> None:
        super().__init__(archive.path, media_type="application/zip", headers=_PUBLIC)
        self._places = places

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._places, asyncio.timeout(DOWNLOAD_S):
            await super().__call__(scope, receive, send)
