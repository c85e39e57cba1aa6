"""The API as a client meets it: the real application behind real HTTPS on loopback, over the in-memory replica.

The server runs in a thread with an event loop of its own; tests talk to it with `requests`, and play the agents by
proposing commands to the replica.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import hmac
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import jsonschema
import requests
import uvloop
from support.builders import agent_connected, declare_host, declare_namespace, destroyed, observation, place, report
from support.harness import Replica
from support.members import Members

from controlplane.api.http.app import create_app
from controlplane.api.http.credentials import Credentials
from controlplane.api.http.protocol import ConnectionLimits
from controlplane.api.http.rates import Rate
from controlplane.api.http.server import ApiServer
from controlplane.api.http.settings import ApiSettings
from controlplane.api.http.token_uses import TokenUses
from controlplane.api.http.watch import WatchCounter
from controlplane.bootstrap.forecast import forecast_of
from controlplane.consensus.configuration import encode
from controlplane.identity.authority import Authority
from controlplane.identity.files import TlsFiles
from controlplane.identity.principal import Principal
from controlplane.identity.tokens import TokenAuthenticator
from controlplane.machine.codec import digest_text
from controlplane.machine.state import State
from controlplane.model.commands import Command
from controlplane.model.resources import Bid, MicroVM
from controlplane.model.types import replace
from controlplane.ports import (
    BackupStatus,
    BidRequestItem,
    HostUnreachableError,
    LogStatus,
    NodeView,
    PlanItem,
    Presence,
    Told,
)
from controlplane.ports.issuance import Issuer
from controlplane.replica.snapshots import Snapshots
from controlplane.sealing import KeyRing
from controlplane.vault.vault import ClusterVault

T = TypeVar("T")
TOKEN = "flk_test-token"
SPEC: dict[str, Any] = {"vcpu": 1, "memory_in_mb": 128, "kernel": {"image": "demo/kernel:6.1"}}


class Tokens:
    """Knows one token, and those that a test adds; of any other, the real credentials tell."""

    def __init__(self, rest: Credentials) -> None:
        self.others: dict[str, Principal] = {}
        self.rest = rest

    async def authenticate(self, bearer: str) -> Principal:
        if bearer in self.others:
            return self.others[bearer]
        given, known = (hashlib.sha256(text.encode()).digest() for text in (bearer, TOKEN))
        if hmac.compare_digest(given, known):
            return Principal(name="alice", roles=frozenset({"admin"}), token="alice")
        return await self.rest.authenticate(bearer)


@dataclass
class Agents:
    """Answers for the hosts whose agents are there to be asked."""

    scores: dict[str, float] = field(default_factory=dict)
    consoles: dict[str, bytes] = field(default_factory=dict)
    """By uid."""
    plans: dict[str, Sequence[PlanItem]] = field(default_factory=dict)
    told: dict[str, Told] = field(default_factory=dict)
    hang: bool = False
    views_of: dict[str, NodeView | str] = field(default_factory=dict)
    """What the nodes believe, as they say when asked."""
    error: Exception | None = None

    async def bids(self, host: str, items: Sequence[BidRequestItem], *, timeout_s: float) -> Mapping[str, Bid]:
        if self.error is not None:
            raise self.error
        if self.hang:
            await asyncio.sleep(60)
        if host not in self.scores:
            raise HostUnreachableError(f"host {host} has no session")
        return {item.uid: Bid(host=host, score=self.scores[host], parts={"load": self.scores[host]}) for item in items}

    async def console(self, host: str, uid: str, *, offset: int, limit: int, timeout_s: float) -> tuple[int, bytes]:
        if self.error is not None:
            raise self.error
        if uid not in self.consoles:
            raise HostUnreachableError("")
        data = self.consoles[uid]
        start = offset if offset >= 0 else max(0, len(data) + offset)
        return start + len(data[start : start + limit]), data[start : start + limit]

    async def views(self, *, timeout_s: float) -> Mapping[str, NodeView | str]:
        return self.views_of

    async def plan(self, host: str, *, timeout_s: float) -> Sequence[PlanItem]:
        if host not in self.plans:
            raise HostUnreachableError(f"host {host} has no session")
        return self.plans[host]

    async def definition(self, host: str, uid: str, *, timeout_s: float) -> Told:
        if host not in self.told:
            raise HostUnreachableError(f"host {host} has no session")
        return self.told[host]

    async def presence(self, *, timeout_s: float) -> tuple[Sequence[Presence], Sequence[str]]:
        return [Presence(node="n1", host=host, session="s", last_heartbeat_age_s=0.1) for host in self.scores], ["n2"]


class Log:
    """The replica's log status with the members that `members` has, and whatever a test changes in it."""

    def __init__(self, replica: Replica, members: Members) -> None:
        self._replica = replica
        self._members = members
        self.changes: dict[str, Any] = {}

    async def status(self) -> LogStatus:
        configuration = self._members.configuration
        found = replace(
            await self._replica.status(),
            members=configuration.members,
            incarnation=configuration.incarnation,
            configuration_index=0,
        )
        return replace(found, **self.changes)


class Described:
    """The OpenAPI document, as a judge: every answer of every test must be as it says."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._paths = [
            (re.compile(re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template)) + "$"), operations)
            for template, operations in sorted(document["paths"].items(), key=lambda item: item[0].count("{"))
        ]

    def check(self, method: str, answer: requests.Response) -> None:
        path = urlsplit(answer.url).path
        operation = next(
            (each[method.lower()] for path_is, each in self._paths if path_is.match(path) and method.lower() in each),
            None,
        )
        media_type = answer.headers.get("Content-Type", "").partition(";")[0]
        if answer.status_code >= 400:
            assert media_type == "application/problem+json", (path, answer.status_code, answer.text)
            schema: dict[str, Any] = {"$ref": "#/components/schemas/Problem"}
        elif operation is None or not media_type.endswith("json"):
            return
        else:
            schema = operation["responses"][str(answer.status_code)]["content"][media_type]["schema"]
        jsonschema.validate(
            answer.json(),
            {**schema, "components": self.document["components"]},
            cls=jsonschema.Draft202012Validator,
        )


class Rig:
    """One served API. `get`, `put`, ... take paths below /api/v2; an absolute path starts with `//`."""

    def __init__(self, tls: TlsFiles, settings: ApiSettings, connections: ConnectionLimits | None = None) -> None:
        self._tls = tls
        self._connections = connections
        self.settings = settings
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name="api-rig", daemon=True)
        self._thread.start()
        self.agents = Agents()
        self.replica: Replica = self.run(_made(Replica))
        self.uses = TokenUses(self.replica)
        self.tokens = Tokens(
            Credentials(
                file=TokenAuthenticator(Path("/nonexistent/tokens.json"), [], None),
                reader=self.replica,
                clock=self.replica.clock,
                uses=self.uses,
                issuers=None,
            )
        )
        self.members = Members()
        self.backup: BackupStatus | None = None
        self.log = Log(self.replica, self.members)
        self.snapshots: Snapshots = self.run(self._snapshots())
        self.server: ApiServer = self.run(self._serve())
        self.session = self.new_session()
        self.described = Described(self.session.get(self.url("/openapi.json"), timeout=30).json())

    async def _serve(self) -> ApiServer:
        app = create_app(
            reader=self.replica,
            proposer=self.replica,
            agents=self.agents,
            nodes=self.agents,
            log=self.log,
            members=self.members,
            snapshots=self.snapshots,
            forecast=forecast_of,
            backup=lambda: self.backup,
            gc_refused=Counter(),
            identity=self.tokens,
            clock=self.replica.clock,
            ids=self.replica.ids,
            settings=self.settings,
            vault=ClusterVault(self.replica, self.replica, KeyRing.new()),
        )
        server = ApiServer(app, host="127.0.0.1", port=0, tls=self._tls, grace_s=3, limits=self._connections)
        await server.start()
        return server

    async def _snapshots(self) -> Snapshots:
        async def fresh(timeout_s: float) -> tuple[State, int, int]:
            return await self.replica.fresh(timeout_s=timeout_s), (await self.replica.status()).applied_index, 1

        return Snapshots(
            fresh=fresh,
            status=self.log.status,
            configuration=lambda _: encode(self.members.configuration),
            clock=self.replica.clock,
            ids=self.replica.ids,
        )

    def new_session(self) -> requests.Session:
        session = requests.Session()
        session.verify = str(self._tls.ca)
        session.trust_env = False
        session.headers["Authorization"] = f"Bearer {TOKEN}"
        return session

    def close(self) -> None:
        self.session.close()
        self.run(self.server.stop())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()

    def give_issuer(self, issuer: Issuer) -> None:
        """From now on this node signs certificates."""
        self.server.app.state.services = dataclasses.replace(self.server.app.state.services, signer=issuer)

    def reset(self) -> None:
        """An empty state and no faults."""

        async def inside() -> None:
            self.replica.leaderless, self.replica.leaderless_s, self.replica.hears = False, 5.0, ("n2", "n3")
            self.replica.lose_outcomes = 0
            self.replica.remembered = 1000
            self.replica.gate.set()
            self.replica.reset()

        self.run(inside())
        self.members.reset()
        self.tokens.others = {}
        self.backup = None
        for held in tuple(self.snapshots.held):
            self.run(self.snapshots.release(held))
        self.log.changes, self.agents.views_of = {}, {}
        self.agents.plans = {}
        self.agents.scores, self.agents.consoles, self.agents.hang, self.agents.error = {}, {}, False, None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do it in the server's loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    @property
    def watchers(self) -> WatchCounter:
        return self.server.app.state.watchers

    # -- as a client ---------------------------------------------------------------------------------------------------

    def url(self, path: str) -> str:
        host, port = self.server.address
        return f"https://{host}:{port}" + (path[1:] if path.startswith("//") else "/api/v2" + path)

    def caller(
        self, name: str, *, roles: Sequence[str] = (), user: str | None = None, groups: Sequence[str] = ()
    ) -> Mapping[str, str]:
        """The header of a token `name` that is known from now on."""
        self.tokens.others[f"flk_{name}"] = Principal(name, frozenset(roles), user, frozenset(groups), token=name)
        return {"Authorization": f"Bearer flk_{name}"}

    def bind(self, name: str, role: str, *namespaces: str, subject: str | None = None) -> None:
        """Give `role` to the token `name`, or to `subject` (as `group/ops`), in `namespaces` or everywhere."""
        kind, _, whom = (subject or f"token/{name}").partition("/")
        spec = {"role": role, "subjects": [{"kind": kind, "name": whom}], "namespaces": list(namespaces) or ["*"]}
        answer = self.put(f"/rolebindings/{name}", {"spec": spec})
        assert answer.status_code in (200, 201), answer.text

    def request(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", 30)
        answer = self.session.request(method, self.url(path), **options)
        if not options.get("stream"):
            self.described.check(method, answer)
        return answer

    def get(self, path: str, **options: Any) -> requests.Response:
        return self.request("GET", path, **options)

    def put(self, path: str, body: Any, **options: Any) -> requests.Response:
        return self.request("PUT", path, json=body, **options)

    def post(self, path: str, body: Any = None, **options: Any) -> requests.Response:
        return self.request("POST", path, json=body, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        return self.request("DELETE", path, **options)

    def put_vm(self, name: str = "web", *, namespace: str = "demo", **spec: Any) -> dict[str, Any]:
        """Declare a microVM, accepted."""
        answer = self.put(f"/namespaces/{namespace}/microvms/{name}", {"spec": {**SPEC, **spec}})
        assert answer.status_code in (200, 201), answer.text
        return answer.json()

    # -- as the rest of the product ------------------------------------------------------------------------------------

    @property
    def digest(self) -> str:
        return digest_text(self.replica.state)

    def do(self, command: Command) -> None:
        self.run(self.replica.accept(command))

    def vm(self, name: str = "web", namespace: str = "demo") -> MicroVM:
        found = self.replica.state.microvm(namespace, name)
        assert found is not None
        return found

    def with_host(self, name: str = "h1", **capacity: int) -> None:
        """A namespace `demo` and a ready host."""
        if "demo" not in self.replica.state.namespaces:
            self.do(declare_namespace())
        self.do(declare_host(name))
        self.do(agent_connected(name, **capacity))

    def place(self, name: str = "web", host: str = "h1") -> None:
        self.do(place(self.vm(name), host))

    def report(self, name: str = "web", **changes: Any) -> None:
        """The host says it did what is asked for, but for `changes`."""
        vm = self.vm(name)
        assert vm.placement is not None
        self.do(report(observation(vm, **changes), host=vm.placement.host))

    def active(self, name: str = "web", host: str = "h1", **spec: Any) -> None:
        """A microVM that runs."""
        self.put_vm(name, **spec)
        self.place(name, host)
        self.report(name)

    def confirm_destroyed(self, name: str = "web") -> None:
        self.do(destroyed(self.vm(name)))


async def _made(factory: Callable[[], T]) -> T:
    return factory()


@contextmanager
def served(directory: Path, *, connections: ConnectionLimits | None = None, **settings: Any) -> Iterator[Rig]:
    authority = Authority.create(directory / "ca", cluster_id="test")
    tls = authority.issue_node("n1", directory / "n1")
    unlimited = Rate(per_s=0, burst=1)
    usual = {"identity_rate": unlimited, "stranger_rate": unlimited, "addresses": lambda: {"n1": "127.0.0.1:1"}}
    rig = Rig(tls, ApiSettings(**{"node": "n1", "version": "0.1.0", **usual, **settings}), connections)
    try:
        yield rig
    finally:
        rig.close()


def eventually(condition: Callable[[], bool], what: str, *, within_s: float = 10.0) -> None:
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        time.sleep(0.01)
