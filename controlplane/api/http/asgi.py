"""What the layers of the API share of ASGI: a header, and a body that was read already."""

from __future__ import annotations

from starlette.types import Message, Receive, Scope


def header_of(scope: Scope, name: bytes) -> str:
    """The first header of that name (in lower case), else empty."""
    for found, value in scope["headers"]:
        if found == name:
            return value.decode("latin-1")
    return ""


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
