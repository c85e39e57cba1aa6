"""Snapshots of the whole state, for backups: take one, read its manifest and the chunks that are missing, let it go.

A snapshot is held at the node that took it, for as long as somebody reads it. Its chunks are named by their content:
what a client has from an earlier snapshot, of whatever node, is still good.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from controlplane.api.http import cluster_shapes, problems
from controlplane.api.http.answers import respond
from controlplane.api.http.context import REVISION_HEADER
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Services, With
from controlplane.ports import SnapshotGoneError, SnapshotsBusyError

MAX_CHUNKS = 256
MAX_ANSWER_BYTES = 32 << 20
_BINARY = "application/octet-stream"

router = APIRouter(tags=["Snapshots"], route_class=StrictRoute)
IdParam = Annotated[str, Path(alias="id", pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$", description="As its taking answered.")]
ChunkName = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
_BYTES: dict[int | str, dict[str, Any]] = {
    200: {"content": {_BINARY: {"schema": {"type": "string", "format": "binary"}}}}
}


class WantedChunks(BaseModel):
    model_config = ConfigDict(extra="forbid")

    names: Annotated[list[ChunkName], Field(min_length=1, max_length=MAX_CHUNKS)]


@router.post("/snapshots", status_code=201, response_model=cluster_shapes.SnapshotShape)
async def take_snapshot(services: With) -> Response:
    """Hold the state as it is now: every write that was acknowledged before is in it."""
    try:
        held = await services.snapshots.take(timeout_s=services.settings.read_timeout_s)
    except SnapshotsBusyError as error:
        raise problems.problem("too_many_snapshots", str(error), retry_after_s=10) from None
    manifest = held.manifest
    document = cluster_shapes.SnapshotShape(
        id=held.id,
        cluster_id=manifest.cluster_id,
        node=services.settings.node,
        incarnation=manifest.incarnation,
        index=manifest.index,
        term=manifest.term,
        revision=held.revision,
        chunks=len(manifest.chunks),
        size=manifest.size,
        idle_s=held.idle_s,
    )
    return respond(document, services.reader.state, status=201)


@router.get("/snapshots/{id}/manifest", response_class=Response, responses=_BYTES)
async def read_manifest(services: With, id_: IdParam) -> Response:
    """The manifest, as backups keep it: checksummed, with the name and size of every chunk."""
    try:
        return _binary(services, await services.snapshots.manifest(id_))
    except SnapshotGoneError as error:
        raise _gone(error) from None


@router.post("/snapshots/{id}/chunks", response_class=Response, responses=_BYTES)
async def read_chunks(services: With, id_: IdParam, body: WantedChunks) -> Response:
    """The named chunks, one after the other in the order asked for; the manifest has their sizes."""
    found = bytearray()
    for name in body.names:
        try:
            (data,) = await services.snapshots.chunks(id_, [name])
        except SnapshotGoneError as error:
            raise _gone(error) from None
        found += data
        if len(found) > MAX_ANSWER_BYTES:
            message = f"together they are over {MAX_ANSWER_BYTES} bytes"
            raise problems.problem("too_large", message, problems.FieldError(pointer="/names", message=message))
    return _binary(services, bytes(found))


@router.delete("/snapshots/{id}", response_model=cluster_shapes.Released)
async def release_snapshot(services: With, id_: IdParam) -> Response:
    """It is not needed any more. Unknown is success."""
    await services.snapshots.release(id_)
    return respond(cluster_shapes.Released(), services.reader.state)


def _binary(services: Services, data: bytes) -> Response:
    return Response(data, media_type=_BINARY, headers={REVISION_HEADER: str(services.reader.state.revision)})


def _gone(error: SnapshotGoneError) -> problems.ApiError:
    return problems.problem("snapshot_gone", str(error))
