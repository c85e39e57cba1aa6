"""The audit trail of requests that lead to no command: what the API refuses, and what it does beside the log.

A command is recorded by the machine. What never becomes one is noted here: requests that are refused for who asks
(401, 403, 429), changes that are refused before the log for whatever reason, changes of the log's members, and reads of
what may hold secrets (`_TOLD`). Notes are kept for `PERIOD_S` and then proposed together, as one command. While nobody
knows whether that was written, they are proposed again: what is noted may be in the chain twice, with the same request
and time, and is not missing from it.

Nobody can fill the log with refusals: equal ones are one note that counts, of one address there are `PER_ADDRESS`
notes in a period, and of all `PER_PERIOD`; what is more is counted by status alone. So a node appends at most one
command with `PER_PERIOD` notes, and one for each status, every `PERIOD_S`. A note holds the route and never the path:
names appear where they are valid ones, which no token is.
"""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Mapping
from typing import NamedTuple

import structlog
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from controlplane.api.http.auth import Principal
from controlplane.model.audit import Origin
from controlplane.model.commands import Witnessed, WitnessRequests
from controlplane.model.types import NAME_PATTERN
from controlplane.ports import Clock, LogError, NoLeaderError, OutcomeUnknownError, Proposer, UpgradePendingError
from controlplane.ports.provenance import SERVED

ACTOR = "audit"
PERIOD_S = 5.0
PER_PERIOD = 64
PER_ADDRESS = 16
UNKNOWN = "?"
"""The route of a path that is none, and of what is only counted."""

_TOLD = frozenset(
    {
        "POST /raft/members",
        "POST /raft/members/{node}/actions/promote",
        "DELETE /raft/members/{node}",
        "POST /raft/actions/transfer-leadership",
        "POST /snapshots",
        "GET /namespaces/{namespace}/microvms/{name}/console",
    }
)
"""Routes whose success is noted: they change what is no object of the state, or give what may hold secrets."""
_CHANGES = frozenset({"PUT", "POST", "DELETE", "PATCH"})
_WHO = frozenset({401, 403, 429})
_name = re.compile(NAME_PATTERN)
_log = structlog.get_logger("api.audit")

RouteOf = Callable[[str, str], tuple[str, Mapping[str, str]] | None]
"""Of a method and a path: its route without the prefix of the API, and the parameters in it."""


class _Note(NamedTuple):
    """What makes two requests equal."""

    actor: str | None
    address: str | None
    action: str
    namespace: str | None
    name: str | None
    status: int


class Trail:
    """One node's notes. `run` proposes them until cancelled; until then they are kept, within the bounds."""

    def __init__(self, *, node: str, proposer: Proposer, clock: Clock) -> None:
        self._node = node
        self._proposer = proposer
        self._clock = clock
        self._notes: dict[_Note, Witnessed] = {}
        self._of_address: Counter[str | None] = Counter()

    def note(self, seen: _Note, origin: Origin) -> None:
        if seen not in self._notes and self._is_full(seen.address):
            seen = _Note(None, None, UNKNOWN, None, None, seen.status)
            origin = Origin()
        known = self._notes.get(seen)
        if known is None:
            self._of_address[seen.address] += 1
        self._notes[seen] = Witnessed(
            at=known.at if known is not None else self._clock.now_ms(),
            actor=seen.actor,
            action=seen.action,
            namespace=seen.namespace,
            name=seen.name,
            status=seen.status,
            count=known.count + 1 if known is not None else 1,
            origin=known.origin if known is not None else origin,
        )

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_S)
            await self.flush()

    async def flush(self) -> None:
        """Propose what there is. What is not certainly written stays for the next time."""
        taken = list(self._notes.items())
        if not taken:
            return
        command = WitnessRequests(node=self._node, requests=[each for _, each in taken])
        try:
            await self._proposer.propose(command, actor=ACTOR)
        except (NoLeaderError, UpgradePendingError):
            return
        except OutcomeUnknownError as error:
            _log.warning("audit.requests_may_be_recorded_twice", requests=len(taken), error=str(error))
            return
        except LogError as error:
            _log.error("audit.requests_lost", requests=len(taken), error=str(error))
        # What was counted meanwhile goes on counting from there.
        for seen, written in taken:
            now = self._notes[seen]
            if now.count > written.count:
                self._notes[seen] = Witnessed(
                    at=self._clock.now_ms(),
                    actor=now.actor,
                    action=now.action,
                    namespace=now.namespace,
                    name=now.name,
                    status=now.status,
                    count=now.count - written.count,
                    origin=now.origin,
                )
            else:
                del self._notes[seen]
        self._of_address = Counter(seen.address for seen in self._notes)

    def _is_full(self, address: str | None) -> bool:
        return len(self._notes) >= PER_PERIOD or self._of_address[address] >= PER_ADDRESS


class TrailMiddleware:
    """Notes each request once its answer has begun. Stands behind whatever says where the request came from."""

    def __init__(self, app: ASGIApp, *, trail: Trail, route_of: RouteOf) -> None:
        self._app = app
        self._trail = trail
        self._route_of = route_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._note(scope, message["status"])
            await send(message)

        await self._app(scope, receive, noting)

    def _note(self, scope: Scope, status: int) -> None:
        served = SERVED.get()
        if served is None or served.proposed or status >= 500:
            return
        method: str = scope["method"]
        if status < 400 and method == "GET" and not scope["path"].endswith("/console"):
            return
        route, names = self._route_of(method, scope["path"]) or (f"{method} {UNKNOWN}", {})
        told = status < 400 and route in _TOLD
        refused = status in _WHO or (status >= 400 and method in _CHANGES)
        if told or refused:
            principal: Principal | None = scope.get("state", {}).get("principal")
            namespace, name = names.get("namespace"), names.get("name") or names.get("node")
            self._trail.note(
                _Note(
                    actor=principal.name if principal is not None else None,
                    address=served.origin.address,
                    action=route if len(method) <= 8 else UNKNOWN,
                    namespace=_valid(namespace),
                    name=_valid(name),
                    status=status,
                ),
                served.origin,
            )


def _valid(name: str | None) -> str | None:
    return name if name is not None and _name.fullmatch(name) is not None else None
