"""Two ways in: a front's replica over the raft process's private socket, and the HTTP API of a whole node."""

from __future__ import annotations

import asyncio
import http.client
import json
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from linearizability.history import ABSENT, Kind, Operation, Outcome

from controlplane.consensus import LogClient
from controlplane.machine.outcome import Applied, Change, Code, Rejected
from controlplane.model.commands import Command, DeclareNamespace, Delete, Precondition
from controlplane.model.spec import NamespaceSpec
from controlplane.model.types import Kind as Resource
from controlplane.ports import NoLeaderError, OutcomeUnknownError
from controlplane.replica import Replica
from controlplane.system import SystemClock, Ulids

LABEL = "value"
TIMEOUT_S = 2.0
ACTOR = "raft-check"
_CONDITION_CODES = (Code.REVISION_CONFLICT, Code.ALREADY_EXISTS, Code.NOT_FOUND)


class UnexpectedAnswerError(Exception):
    """An answer that no operation of the workload can get from a correct node."""


class LogDoor:
    """What a front does: a replica that follows the log, proposals, and reads by read-index. `fresh=False` reads the
    replica as it is, which is not linearizable and must be found out.
    """

    def __init__(self, socket: Path, *, fresh: bool = True) -> None:
        self._socket = socket
        self._fresh = fresh
        self._ids = Ulids()
        self._open()

    def _open(self) -> None:
        self._log = LogClient(self._socket)
        self._replica = Replica(self._log, cluster_id="raft-check", clock=SystemClock(), ids=self._ids)
        self._running = asyncio.create_task(self._replica.run())

    async def close(self) -> None:
        """Raises what made the replica stop, if anything did."""
        self._running.cancel()
        await asyncio.wait([self._running])
        await self._log.aclose()
        if not self._running.cancelled() and (error := self._running.exception()) is not None:
            raise error

    async def restart(self) -> None:
        """The front died with its machine: the next one begins with nothing."""
        await self.close()
        self._open()

    async def perform(self, operation: Operation, *, expected_revision: int | None, key: str | None) -> Outcome:
        replica = self._replica
        if operation.kind is Kind.READ:
            try:
                state = await replica.fresh(timeout_s=TIMEOUT_S) if self._fresh else replica.state
            except NoLeaderError:
                return Outcome.FAILED
            found = state.namespaces.get(operation.key)
            operation.revision = state.revision
            if found is not None:
                operation.value = int(found.meta.labels[LABEL])
                operation.value_revision = found.meta.intent_revision
            return Outcome.OK
        command = self._command(operation, expected_revision)
        try:
            outcome = await replica.propose(command, actor=ACTOR, key=key, timeout_s=TIMEOUT_S)
        except NoLeaderError:
            return Outcome.FAILED
        except OutcomeUnknownError:
            return Outcome.UNKNOWN
        if isinstance(outcome, Rejected):
            if outcome.code not in _CONDITION_CODES:
                raise UnexpectedAnswerError(f"{operation.describe()}: {outcome}")
            return Outcome.REFUSED
        note(operation, outcome)
        return Outcome.OK

    def _command(self, operation: Operation, revision: int | None) -> Command:
        if operation.kind is Kind.DELETE:
            return Delete(kind=Resource.NAMESPACE, name=operation.key, revision=revision)
        return DeclareNamespace(
            name=operation.key,
            uid=self._ids.new(),
            spec=NamespaceSpec(),
            labels={LABEL: str(operation.value)},
            when=Precondition(revision=revision, create_only=operation.kind is Kind.CREATE),
        )


def note(operation: Operation, applied: Applied) -> None:
    """What an accepted write says of revisions. The repetition of one that had come true already tells how far the
    state is now, and not which revision it was that wrote the value.
    """
    operation.revision = applied.revision
    if applied.change in (Change.CREATED, Change.CHANGED):
        operation.value_revision = applied.revision


class HttpDoor:
    """API v2 of one node. Its answers show the object as it is now, so a write learns no revision of its own."""

    def __init__(self, address: str, port: int, ca_file: Path, token: str, threads: ThreadPoolExecutor) -> None:
        self._address = address
        self._port = port
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        self._threads = threads
        self._tls = ssl.create_default_context(cafile=str(ca_file))
        self._local = threading.local()

    async def close(self) -> None:
        """Connections belong to the threads, and end with them."""

    async def restart(self) -> None:
        """Nothing is kept here."""

    async def perform(self, operation: Operation, *, expected_revision: int | None, key: str | None) -> Outcome:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._perform, operation, expected_revision, key)

    def _perform(self, operation: Operation, revision: int | None, key: str | None) -> Outcome:
        headers = dict(self._headers)
        if revision is not None:
            headers["If-Match"] = f'"{revision}"'
        if operation.kind is Kind.CREATE:
            headers["If-None-Match"] = "*"
        if key is not None:
            headers["Idempotency-Key"] = key
        method = {Kind.READ: "GET", Kind.DELETE: "DELETE"}.get(operation.kind, "PUT")
        body = json.dumps({"labels": {LABEL: str(operation.value)}}) if method == "PUT" else None
        sent = False
        try:
            connection = self._connected()
            sent = True
            connection.request(method, f"/api/v2/namespaces/{operation.key}", body, headers)
            answer = connection.getresponse()
            status, document = answer.status, json.loads(answer.read())
        except (OSError, http.client.HTTPException, ValueError):
            self._drop()
            return Outcome.UNKNOWN if sent and method != "GET" else Outcome.FAILED
        return self._understand(operation, status, document, answer.headers.get("Flintlock-Revision"))

    def _understand(
        self, operation: Operation, status: int, document: dict[str, Any], state_revision: str | None
    ) -> Outcome:
        code = document.get("code")
        if status in (200, 201, 202):
            if operation.kind is Kind.READ:
                operation.value = int(document["labels"][LABEL])
                operation.value_revision = document["revision"]
                operation.revision = int(state_revision) if state_revision else None
            elif operation.kind is not Kind.DELETE and document["labels"] == {LABEL: str(operation.value)}:
                operation.value_revision = document["revision"]
            return Outcome.OK
        if status == 404 and operation.kind is Kind.READ:
            operation.value = ABSENT
            return Outcome.OK
        if status == 404:
            # A declaration that was made, and deleted before the answer, has no object to show.
            return Outcome.REFUSED if operation.kind is Kind.DELETE else Outcome.OK
        if status == 412:
            return Outcome.REFUSED
        if code in ("no_leader", "no_majority", "not_ready"):
            return Outcome.FAILED
        if code == "outcome_unknown":
            return Outcome.FAILED if operation.kind is Kind.READ else Outcome.UNKNOWN
        raise UnexpectedAnswerError(f"{operation.describe()}: {status} {document}")

    def _connected(self) -> http.client.HTTPSConnection:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection(
                self._address, self._port, timeout=TIMEOUT_S * 1.5, context=self._tls
            )
            connection.connect()
            self._local.connection = connection
        return connection

    def _drop(self) -> None:
        connection: http.client.HTTPSConnection | None = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()
            self._local.connection = None
