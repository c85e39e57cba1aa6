"""Bounded bodies: size, time and media type are checked before the framework sees a byte.

The body is collected here and handed on in one piece, so a client that sends slowly or without end holds nothing but
its own connection.
"""

from __future__ import annotations

import asyncio
from contextlib import nullcontext

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from controlplane.api.http import problems
from controlplane.api.http.asgi import WHOLE, header_of, headers_of, replay
from controlplane.api.http.settings import ApiSettings

_WITH_BODY = frozenset({"PUT", "POST", "PATCH"})
_APPLY_PATH = "/api/v2/apply"
_DISCARDED = 4
"""How many times its limit a body that is too large is read on before its connection is cut."""


class BodyLimitMiddleware:
    def __init__(self, app: ASGIApp, *, settings: ApiSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._body(scope, receive)
        except problems.ApiError as error:
            # What was not read of the body would be taken for the next request.
            error.headers["Connection"] = "close"
            await problems.answer(error)(scope, receive, send)
            return
        if body is not None:
            await self._app(scope, replay(body, receive), send)

    async def _body(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None when the client went away. Raises ApiError."""
        headers = headers_of(scope)
        if b"content-length" not in headers and b"transfer-encoding" not in headers:
            return b""
        try:
            # A timer costs more than the rest of this, and most bodies come with their heads.
            async with nullcontext() if WHOLE in scope else asyncio.timeout(self._settings.body_timeout_s):
                body = await self._collected(scope, receive)
        except ClientDisconnect:
            return None
        except TimeoutError:
            raise problems.problem(
                "request_timeout", f"the body took longer than {self._settings.body_timeout_s:g} s"
            ) from None
        if body and scope["method"] in _WITH_BODY and not _is_json(header_of(scope, b"content-type")):
            message = "must be application/json"
            raise problems.problem(
                "unsupported_media_type", message, problems.FieldError(pointer="/header/content-type", message=message)
            )
        return body

    async def _collected(self, scope: Scope, receive: Receive) -> bytes:
        """Raises ApiError, and ClientDisconnect."""
        limit = self._settings.apply_limit_bytes if scope["path"] == _APPLY_PATH else self._settings.body_limit_bytes
        collected = bytearray()
        more = True
        while more:
            part, more = await _part(receive)
            collected += part
            if len(collected) > limit:
                collected.clear()
                await _discard(receive, at_most=_DISCARDED * limit if more else 0)
                raise problems.problem("too_large", f"the body is over {limit} bytes")
        return bytes(collected)


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (media_type.startswith("application/") and media_type.endswith("+json"))


async def _part(receive: Receive) -> tuple[bytes, bool]:
    """The next part of the body, and whether there are more. Raises ClientDisconnect."""
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientDisconnect
    return message.get("body", b""), message.get("more_body", False)


async def _discard(receive: Receive, *, at_most: int) -> None:
    """Read on, keeping nothing: most clients look at an answer only after they have sent everything."""
    while at_most > 0:
        part, more = await _part(receive)
        at_most = at_most - len(part) if more else 0
