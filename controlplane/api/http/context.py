"""What every request gets: an id, its origin, the revision in its answer, one access log line, and no traceback.

Where the answer may not be the newest (a stale read, a node without a leader) it also says how old it may be.

The log line never holds a body, a query string, a header or a token. Whatever escapes from a handler is logged with its
traceback under the request's id, and the client gets a problem that names that id.
"""

from __future__ import annotations

import re
import time
import traceback

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.api.http import problems
from controlplane.api.http.asgi import header_of
from controlplane.api.http.partition import AGE_HEADER
from controlplane.model.audit import MAX_TEXT, Origin
from controlplane.ports import Ids, StateReader
from controlplane.ports.provenance import SERVED, Provenance

REVISION_HEADER = "Flintlock-Revision"
_REVISION = REVISION_HEADER.lower().encode()
_AGE = AGE_HEADER.lower().encode()
STALE = "stale"
"""Set in the state of a request that is answered from this replica as it is."""
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_TRACE = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}")
"""W3C Trace Context: what `traceparent` begins with in every version."""
_NO_TRACE = "0" * 32
_FRAMES = 20
_log = structlog.get_logger("api.http")


class ContextMiddleware:
    def __init__(self, app: ASGIApp, *, reader: StateReader, ids: Ids) -> None:
        self._app = app
        self._reader = reader
        self._ids = ids

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = header_of(scope, b"x-request-id")
        request_id = given if _REQUEST_ID.fullmatch(given) else self._ids.new()
        began = time.perf_counter()
        status = 0
        served = SERVED.set(Provenance(_origin(scope, request_id)))

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = message["headers"]
                present = {name for name, _ in headers}
                headers += [(b"x-request-id", request_id.encode()), (b"x-content-type-options", b"nosniff")]
                if b"cache-control" not in present:
                    headers.append((b"cache-control", b"no-store"))
                if _REVISION not in present:
                    headers.append((_REVISION, str(self._reader.state.revision).encode()))
                if not self._reader.caught_up or scope.get("state", {}).get(STALE):
                    headers.append((_AGE, f"{self._reader.contact.age_s:.1f}".encode()))
            await send(message)

        try:
            await self._app(scope, receive, send_with_headers)
        except Exception:
            # As text: a renderer that shows local variables would show bodies and tokens.
            _log.error(
                "request_failed",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                traceback=traceback.format_exc(limit=-_FRAMES),
            )
            if status == 0:
                error = problems.problem(
                    "internal", "the server met an error that it did not expect", request_id=request_id
                )
                await problems.answer(error)(scope, receive, send_with_headers)
        finally:
            SERVED.reset(served)
            principal = scope.get("state", {}).get("principal")
            _log.info(
                "request",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                status=status,
                duration_ms=round((time.perf_counter() - began) * 1000, 1),
                actor=principal.name if principal is not None else None,
            )


def _origin(scope: Scope, request_id: str) -> Origin:
    client = scope.get("client")
    trace = _TRACE.match(header_of(scope, b"traceparent"))
    agent = "".join(filter(str.isprintable, header_of(scope, b"user-agent")[:MAX_TEXT]))
    return Origin(
        address=client[0] if client is not None else None,
        request=request_id,
        trace=trace[1] if trace is not None and trace[1] != _NO_TRACE else None,
        agent=agent or None,
    )
