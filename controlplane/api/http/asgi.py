"""What the layers of the API share of ASGI: headers by name, and a body that was read already."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.types import Message, Receive, Scope

_HEADERS = "flintlock.headers"
WHOLE = "flintlock.whole"
"""In the scope of a request that came with all of its body: reading it waits for nobody."""


def headers_of(scope: Scope) -> Mapping[bytes, bytes]:
    """The headers of a request by name, in lower case; of those of one name the first."""
    headers: dict[bytes, bytes] | None = scope.get(_HEADERS)
    if headers is None:
        headers = scope[_HEADERS] = dict(reversed(scope["headers"]))
    return headers


def header_of(scope: Scope, name: bytes) -> str:
    """The first header of that name, else empty."""
    return headers_of(scope).get(name, b"").decode("latin-1")


def replay(body: bytes, receive: Receive) -> Receive:
    """Gives `body` once, then what the connection says (its end)."""
    given = False

    async def replayed() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replayed
