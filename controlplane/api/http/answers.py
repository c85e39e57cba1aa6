"""Documents to HTTP answers: JSON bytes straight from the model, with the revision and the entity tag."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import BaseModel
from starlette.responses import Response

from controlplane.api.http import shapes
from controlplane.api.http.context import REVISION_HEADER
from controlplane.machine.state import State


def respond(
    document: BaseModel, state: State, *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """`state` is the snapshot that the document was made from: the answer's `Flintlock-Revision`."""
    sent = {REVISION_HEADER: str(state.revision), **(headers or {})}
    if isinstance(document, shapes.Resource):
        sent["ETag"] = f'"{document.revision}"'
    return Response(document.model_dump_json(), status_code=status, media_type="application/json", headers=sent)
