"""Whether who opened a stream may go on reading it.

A request is judged once, when it comes. A stream outlives that judgement: its credential expires, is revoked, rotated
away or struck from the tokens file, and roles and bindings are taken back. So the judgement is made again, as often as
somebody may go on reading what he lost. Until then nothing leaks that he may not see (`Filter.accepts` asks the state
for each event), but a stream that sees nothing any more is taken for calm.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import cast

from starlette.types import Scope

from controlplane.api.http import problems
from controlplane.identity.principal import Principal, UnauthenticatedError
from controlplane.ports import Clock, LogError

LOOK_S = 0.5
_AGAIN = "authenticate_again"
"""Where in the state of a request its credential can be asked for again."""
Authenticate = Callable[[], Awaitable[Principal]]


def remember(scope: Scope, authenticate: Authenticate) -> None:
    """For whatever outlives the request: how its credential is checked."""
    scope["state"][_AGAIN] = authenticate


async def until_withdrawn(scope: Scope, principal: Principal, clock: Clock, reads: Callable[[], bool]) -> None:
    """Ends only by raising ApiError: 401 when the credential has ended, 403 when `reads` was true and is not any more.

    Issuers elsewhere are not asked again: what they sign is good until it expires.
    """
    again = cast("Authenticate", scope["state"][_AGAIN])
    had = False
    while True:
        if principal.expires_at is not None and principal.expires_at <= clock.now_ms():
            raise problems.problem("unauthenticated", "the credential that the stream was opened with has expired")
        if principal.token is not None:
            try:
                roles = (await again()).roles
            except UnauthenticatedError as error:
                raise problems.problem("unauthenticated", f"the stream's credential has ended: {error}") from None
            except LogError:  # only a newer state could tell
                roles = principal.roles
            if roles != principal.roles:
                raise problems.problem("forbidden", "the roles of the stream's credential are others by now")
        if had and not reads():
            raise problems.problem("forbidden", "what this stream was allowed to read was taken back")
        had = had or reads()
        await asyncio.sleep(LOOK_S)
