"""The control plane's HTTP API v2 over the in-memory store, with TLS and a token, and faults that tests ask for.

It answers what the provider uses and nothing else; where the real control plane runs, the same tests run against that.
"""

from __future__ import annotations

import json
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from acceptance.terraform.certificates import write_certificates
from acceptance.terraform.fake_store import Key, ProblemError, Store, not_found

COLLECTIONS = {
    "namespaces": "Namespace",
    "hosts": "Host",
    "placementpolicies": "PlacementPolicy",
    "failoverpolicies": "FailoverPolicy",
    "gcpolicies": "GCPolicy",
    "roles": "Role",
    "rolebindings": "RoleBinding",
}


@dataclass
class Faults:
    """What goes wrong next; each count is used up one request at a time."""

    unavailable: int = 0
    """Requests answered 503 no_leader before anything is done."""
    lost_answers: int = 0
    """Writes that are carried out and whose connection then closes without an answer."""
    delay_s: float = 0.0
    forged: tuple[int, bytes] | None = None
    """A status and body answered to everything, as a wrong proxy would."""


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    dry_run: bool = False
    query: str = ""


@dataclass
class FakeApi:
    """`with FakeApi(directory) as api:` serves on a free loopback port until the end of the block."""

    directory: Path
    token: str = "test-token"
    store: Store = field(default_factory=Store)
    faults: Faults = field(default_factory=Faults)
    requests: list[Request] = field(default_factory=list)

    def __enter__(self) -> FakeApi:
        self.files = write_certificates(self.directory)
        api = self

        class Bound(_Handler):
            fake = api

        self.server = _Server(("127.0.0.1", 0), Bound)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.files.server_certificate, self.files.server_key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self._thread.join()
        self.server.server_close()

    @property
    def endpoint(self) -> str:
        return f"https://127.0.0.1:{self.server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "FLINTLOCK_ENDPOINTS": self.endpoint,
            "FLINTLOCK_TOKEN": self.token,
            "FLINTLOCK_CA_FILE": str(self.files.ca),
        }

    def calls(self, method: str) -> list[Request]:
        return [each for each in self.requests if each.method == method and not each.dry_run]

    def rehearsals(self) -> list[Request]:
        return [each for each in self.requests if each.dry_run]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up (a killed provider) is no news."""


class _Handler(BaseHTTPRequestHandler):
    fake: FakeApi
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, format: str, *args: object) -> None:
        """Requests are recorded, not printed."""

    def do_GET(self) -> None:
        self._handle()

    def do_PUT(self) -> None:
        self._handle()

    def do_POST(self) -> None:
        self._handle()

    def do_DELETE(self) -> None:
        self._handle()

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length)
        headers = {name.lower(): value for name, value in self.headers.items()}
        url = urlsplit(self.path)
        body = json.loads(raw) if raw else None
        query = parse_qs(url.query)
        dry_run = query.get("dry_run") == ["true"]
        self.fake.requests.append(Request(self.command, url.path, headers, body, dry_run, url.query))
        faults = self.fake.faults
        if faults.delay_s:
            time.sleep(faults.delay_s)
        if faults.forged:
            self._send(*faults.forged, {"Content-Type": "text/html"})
            return
        try:
            self._admit(headers)
            parts = [unquote(part) for part in url.path.removeprefix("/api/v2/").split("/")]
            status, answer, extra = self._route(parts, query, headers, body)
        except ProblemError as problem:
            status, answer, extra = problem.status, problem.body(), {"Content-Type": "application/problem+json"}
        if self.command == "PUT" and not dry_run and status < 300 and faults.lost_answers > 0:
            faults.lost_answers -= 1
            self.close_connection = True
            return
        self._send(status, json.dumps(answer).encode(), extra)

    def _admit(self, headers: dict[str, str]) -> None:
        if headers.get("authorization") != f"Bearer {self.fake.token}":
            raise ProblemError(401, "unauthenticated", "The token is not valid")
        if self.fake.faults.unavailable > 0:
            self.fake.faults.unavailable -= 1
            raise ProblemError(503, "no_leader", "There is no leader", extra={"retry_after_s": 0})

    def _send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Flintlock-Revision", str(self.fake.store.revision))
        self.end_headers()
        self.wfile.write(data)

    def _route(
        self, parts: list[str], query: dict[str, list[str]], headers: dict[str, str], body: Any
    ) -> tuple[int, Any, dict[str, str]]:
        store = self.fake.store
        match self.command, parts:
            case "GET", ["cluster"]:
                return 200, self._cluster(), {}
            case "GET", ["microvms"]:
                return self._page(store.items("MicroVM", None, query), query)
            case "GET", ["namespaces", namespace, "microvms"]:
                return self._page(store.items("MicroVM", namespace, query), query)
            case "GET", [collection] if collection in COLLECTIONS:
                return self._page(store.items(COLLECTIONS[collection], None, query), query)
            case method, [collection, name] if collection in COLLECTIONS:
                return self._object(method, (COLLECTIONS[collection], "", name), query, headers, body)
            case method, ["namespaces", namespace, "microvms", name]:
                return self._object(method, ("MicroVM", namespace, name), query, headers, body)
            case "POST", ["namespaces", namespace, "microvms", name, "actions", "repair"]:
                store.repair(("MicroVM", namespace, name))
                return 202, {"operation": {"id": "op", "kind": "repair", "phase": "running"}}, {}
            case _:
                raise not_found(("path", "", self.path))

    def _object(
        self, method: str, key: Key, query: dict[str, list[str]], headers: dict[str, str], body: Any
    ) -> tuple[int, Any, dict[str, str]]:
        store = self.fake.store
        if method == "PUT" and "dry_run" in query:
            return 200, store.rehearse(key, body), {}
        if method == "PUT":
            return *store.put(key, body, headers), {}
        if method == "DELETE":
            return *store.delete(key, headers), {}
        target = query.get("wait_for")
        if target is None:
            return 200, store.get(key), {}
        outcome, found = store.wait(key, target[0], int(query.get("generation", ["0"])[0]), float(query["wait_s"][0]))
        return 200, found, {"Flintlock-Wait": outcome}

    def _page(self, items: list[dict[str, Any]], query: dict[str, list[str]]) -> tuple[int, Any, dict[str, str]]:
        start = int(query.get("continue", ["0"])[0])
        limit = int(query.get("limit", ["500"])[0])
        rest = str(start + limit) if start + limit < len(items) else None
        return 200, {"items": items[start : start + limit], "revision": self.fake.store.revision, "continue": rest}, {}

    def _cluster(self) -> dict[str, Any]:
        store = self.fake.store
        return {
            "cluster_id": "fake",
            "failover": {"breaker_open": False, "lost": 0, "of": 0, "message": ""},
            "revision": store.revision,
            "state_hash": "0" * 16,
            "node": "n1",
            "version": "0.1.0",
            "log": {"leader": "n1", "term": 1},
            "nodes": [{"node": "n1", "address": self.fake.endpoint, "reachable": True, "role": "leader"}],
            "hosts": {"expected": sum(1 for key in store.objects if key[0] == "Host")},
            "microvms": {"running": sum(1 for key in store.objects if key[0] == "MicroVM")},
        }
