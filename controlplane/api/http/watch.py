"""Watching: every change as a server-sent event, from a revision on.

A stream is a pump that reads the replica's events into a bounded queue and a writer that sends them. A client that is
too slow for the queue is told so and its stream ends; it resumes from the last id that it saw. A revision that is no
longer remembered answers 410 before the stream begins, or ends it with an `error` event; either way the client lists
again.

A stream of a node that has lost the leader ends with an `error` event, too: its silence would be taken for calm. One
that was asked to be stale goes on, and its heartbeats tell for how long there has been no leader. The same end comes to
the stream of somebody whose credential has ended, or who may see nothing of it any more (`standing`).

One command may change several objects. Their events leave together and only the last carries the `id`, so that a stream
that breaks in between is resumed from before them: an event may come twice, and none is lost.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from controlplane.api.http import found_views, partition, problems, shapes, views
from controlplane.api.http.access import Asker, about_object
from controlplane.api.http.context import REVISION_HEADER
from controlplane.api.http.partition import until_cut_off
from controlplane.api.http.services import Services
from controlplane.api.http.standing import until_withdrawn
from controlplane.machine.events import Declared, Event
from controlplane.machine.state import State
from controlplane.model.access import NAMESPACED, AccessKind, Verb
from controlplane.model.resources import Operation
from controlplane.model.types import Kind
from controlplane.ports import CompactedError

_START_S = 1.0
"""How long to wait for the past that was asked for, or for the word that it is forgotten."""
_LAST_WORDS_S = 1.0


@dataclass(frozen=True, slots=True)
class Filter:
    asker: Asker
    kind: Kind | None = None
    namespace: str | None = None

    def accepts(self, event: Event, state: State) -> bool:
        """By the roles and bindings of `state`: what is taken from a caller ends what it sees."""
        if self.kind is not None and event.kind is not self.kind:
            return False
        if self.namespace is not None and _namespace_of(event.object) != self.namespace:
            return False
        return self.asker.allows(about_object(Verb.READ, event.object, state), state)

    def may_accept(self, state: State) -> bool:
        """Whether there may be an event that it accepts."""
        kinds = tuple(Kind) if self.kind is None else (self.kind,)
        grants = self.asker.access.grants(self.asker.principal, state)
        return any(
            grants.any_of(Verb.READ, each, namespace=self.namespace if each in NAMESPACED else None)
            for each in (AccessKind(kind.value) for kind in kinds)
        )


def _namespace_of(subject: Declared) -> str | None:
    return subject.target.namespace if isinstance(subject, Operation) else subject.meta.namespace


def document(state: State, subject: Declared) -> shapes.AnyResource | shapes.OperationShape:
    return views.operation(subject) if isinstance(subject, Operation) else views.resource(state, subject)


def frames(state: State, events: Sequence[Event]) -> bytes:
    """The events of whole revisions, the last of each revision with its id."""
    parts: list[str] = []
    for event, following in zip(events, [*events[1:], None], strict=True):
        data = shapes.WatchData(
            revision=event.revision,
            kind=event.kind,
            object=document(state, event.object),
            deletion=found_views.deletion(event.deletion),
        )
        if following is None or following.revision != event.revision:
            parts.append(f"id: {event.revision}\n")
        parts.append(f"event: {event.type.value}\ndata: {data.model_dump_json()}\n\n")
    return "".join(parts).encode()


class WatchCounter:
    """How many streams are open at this node, and by whom."""

    def __init__(self) -> None:
        self.by: Counter[str] = Counter()

    @property
    def open(self) -> int:
        return self.by.total()

    def opened(self, who: str) -> None:
        self.by[who] += 1

    def closed(self, who: str) -> None:
        self.by[who] -= 1
        if not self.by[who]:
            del self.by[who]


class WatchResponse(Response):
    """The whole life of one stream; nothing outlives its `__call__`."""

    def __init__(
        self, services: Services, counter: WatchCounter, after: int, wanted: Filter, *, stale: bool = False
    ) -> None:
        super().__init__()
        self._services = services
        self._counter = counter
        self._after = after
        self._wanted = wanted
        self._stale = stale
        self._queue: asyncio.Queue[Event] = asyncio.Queue(services.settings.watch_queue)
        self._began = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        who = self._wanted.asker.principal.name
        if (refusal := self._refusal(who)) is not None:
            await problems.answer(refusal)(scope, receive, send)
            return
        self._counter.opened(who)
        tasks = [
            asyncio.create_task(self._pump()),
            asyncio.create_task(_gone_away(receive)),
            asyncio.create_task(_closing(self._services)),
            asyncio.create_task(self._withdrawn(scope)),
        ]
        if not self._stale:
            tasks.append(asyncio.create_task(self._cut_off()))
        try:
            await self._stream(scope, receive, send, tasks)
        finally:
            self._counter.closed(who)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _refusal(self, who: str) -> problems.ApiError | None:
        settings, counter = self._services.settings, self._counter
        if counter.open >= settings.max_watchers:
            return problems.problem(
                "too_many_watchers", f"{settings.max_watchers} are open at this node", retry_after_s=5
            )
        if counter.by[who] >= settings.watchers_per_identity:
            message = f"{who} has {settings.watchers_per_identity} open at this node"
            return problems.problem("too_many_watchers", message, retry_after_s=5)
        return None

    async def _stream(self, scope: Scope, receive: Receive, send: Send, tasks: list[asyncio.Task[None]]) -> None:
        pump, failing = tasks[0], [tasks[0], *tasks[3:]]
        if self._after < self._services.reader.state.revision:
            first = asyncio.create_task(self._began.wait())
            await asyncio.wait([first, *tasks], timeout=_START_S, return_when=asyncio.FIRST_COMPLETED)
            first.cancel()
        if pump.done() and not self._began.is_set():
            await problems.answer(self._failure(pump))(scope, receive, send)
            return
        headers = {
            "content-type": "text/event-stream",
            REVISION_HEADER.lower(): str(self._after),
            "x-accel-buffering": "no",
        }
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
            }
        )
        await _write(send, f": watching from revision {self._after}\n\n".encode())
        writer = asyncio.create_task(self._writer(send))
        tasks.append(writer)
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)
        async with asyncio.timeout(_LAST_WORDS_S):
            if (ended := next((task for task in failing if task.done()), None)) is not None:
                last = self._failure(ended).problem.model_dump_json(exclude_none=True)
                await _write(send, f"event: error\ndata: {last}\n\n".encode())
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _pump(self) -> None:
        """Ends only when the stream has to: raises CompactedError, or QueueFull for a client that is too slow."""
        async for event in self._services.reader.watch(self._after):
            if self._wanted.accepts(event, self._services.reader.state):
                self._queue.put_nowait(event)
            self._began.set()

    async def _cut_off(self) -> None:
        """Ends only when the stream has to: raises ApiError."""
        await until_cut_off(self._services.reader)
        raise partition.refusal(self._services.reader.contact)

    async def _withdrawn(self, scope: Scope) -> None:
        """Ends only when the stream has to: raises ApiError."""
        await until_withdrawn(
            scope,
            self._wanted.asker.principal,
            self._services.clock,
            lambda: self._wanted.may_accept(self._services.reader.state),
        )

    async def _writer(self, send: Send) -> None:
        while True:
            try:
                async with asyncio.timeout(self._services.settings.heartbeat_s):
                    events = [await self._queue.get()]
            except TimeoutError:
                await _write(send, self._heartbeat())
                continue
            # The pump does not pause within a revision, so what is queued holds whole revisions: take all of it.
            while not self._queue.empty():
                events.append(self._queue.get_nowait())
            await _write(send, frames(self._services.reader.state, events))

    def _heartbeat(self) -> bytes:
        if self._services.reader.caught_up:
            return b": heartbeat\n\n"
        contact = self._services.reader.contact
        return f": heartbeat, without a leader for {contact.since_s:.0f} s\n\n".encode()

    def _failure(self, ended: asyncio.Task[None]) -> problems.ApiError:
        error = ended.exception()
        match error:
            case problems.ApiError():
                return error
            case CompactedError():
                return problems.from_compacted(self._after, self._services.reader.state.revision)
            case asyncio.QueueFull():
                return problems.problem("too_slow", "more events are waiting than this stream may be behind")
            case None:
                return problems.problem("not_ready", "this node stopped following the log", retry_after_s=1)
            case _:
                raise error


async def _write(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


async def _closing(services: Services) -> None:
    await services.closing.wait()


async def _gone_away(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
