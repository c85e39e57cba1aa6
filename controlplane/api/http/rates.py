"""How much one identity may ask of a node, and one address of nobody known: token buckets.

Whoever is known has a bucket of its own, whatever addresses it comes from. What authentication refuses is charged to
its address; an address whose bucket is empty is refused before its token is looked at, so guessing tokens costs a
guesser his rate and nobody else anything, unless he shares an address with them. Buckets are kept by the newest use, so
many of each kind; one that is forgotten was full again or is a stranger's, who begins anew.

Agents and nodes come through the gateway and have none.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import cast

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.api.http import problems
from controlplane.api.http.auth import Principal, is_open
from controlplane.ports import Clock

_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Rate:
    """`per_s` requests a second in the long run and `burst` at once; 0 a second: no limit."""

    per_s: float
    burst: int


class Buckets:
    """One bucket for each key."""

    def __init__(self, rate: Rate, clock: Clock, *, kept: int = _KEPT) -> None:
        self._rate = rate
        self._clock = clock
        self._kept = kept
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()
        """(tokens, when they were counted), the newest use last."""

    def wait_s(self, key: str) -> float:
        """How long until there is a token; 0: there is one."""
        level = self._level(key)
        return 0.0 if level >= 1 or not self._rate.per_s else (1 - level) / self._rate.per_s

    def take(self, key: str) -> float:
        """Take a token. Gives 0, or how long it is until there is one, and takes none."""
        wait_s = self.wait_s(key)
        if not wait_s and self._rate.per_s:
            self._levels[key] = (self._level(key) - 1, self._clock.monotonic_s())
            self._levels.move_to_end(key)
            if len(self._levels) > self._kept:
                self._levels.popitem(last=False)
        return wait_s

    def _level(self, key: str) -> float:
        level, counted_s = self._levels.get(key, (float(self._rate.burst), 0.0))
        return min(float(self._rate.burst), level + (self._clock.monotonic_s() - counted_s) * self._rate.per_s)


class StrangerRateMiddleware:
    """Stands before authentication: refuses addresses from which too much was refused."""

    def __init__(self, app: ASGIApp, *, buckets: Buckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        address: str = client[0] if client is not None else ""
        if wait_s := self._buckets.wait_s(address):
            await _refused("from this address too much was refused", wait_s)(scope, receive, send)
            return

        async def charging(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 401:
                self._buckets.take(address)
            await send(message)

        await self._app(scope, receive, charging)


class IdentityRateMiddleware:
    """Stands behind authentication, before the body is read."""

    def __init__(self, app: ASGIApp, *, buckets: Buckets) -> None:
        self._app = app
        self._buckets = buckets

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        principal = scope.get("state", {}).get("principal") if scope["type"] == "http" else None
        if principal is not None and (wait_s := self._buckets.take(cast("Principal", principal).name)):
            await _refused("this token asks more than it may", wait_s)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _refused(why: str, wait_s: float) -> ASGIApp:
    error = problems.problem("rate_limited", why, retry_after_s=round(wait_s, 3))
    # A body that nobody reads would be taken for the next request.
    error.headers["Connection"] = "close"
    return problems.answer(error)
