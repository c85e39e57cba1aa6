"""A node without a leader says so in every answer: every route of the application, and whoever only waits."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from unit.api.rig import SPEC, Rig

DOCUMENT = json.loads((Path(__file__).parents[3] / "schemas" / "openapi.json").read_text())
VM = "/namespaces/demo/microvms/web"
AGE = "Flintlock-Age"
OWN = {
    ("GET", "/api/v2/cluster"),
    ("GET", "/api/v2/metrics"),
    ("GET", "/api/v2/raft"),
    ("GET", "/api/v2/raft/members"),
    ("GET", "/api/v2/schema/microvm"),
    ("GET", "/api/v2/snapshots/{id}/manifest"),
    ("POST", "/api/v2/snapshots/{id}/chunks"),
    ("DELETE", "/api/v2/snapshots/{id}"),
    ("GET", "/healthz"),
    ("GET", "/readyz"),
    ("GET", "/api/v2/providers/registry.terraform.io/microscaler/flintlock/{document}"),
}
"""What is answered from what this node alone has or believes: such an answer carries its age."""
NAMES = {
    "{namespace}": "demo",
    "{name}": "web",
    "{uid}": "0" * 26,
    "{id}": "0" * 26,
    "{action}": "restart",
    "{node}": "n2",
    "{document}": "index.json",
}
BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v2/apply"): {"resources": []},
    ("PUT", "/api/v2/namespaces/{namespace}/microvmgroups/{name}"): {"spec": {"replicas": 1, "template": SPEC}},
    ("PUT", "/api/v2/hosts/{name}"): {"spec": {}},
    ("PUT", "/api/v2/namespaces/{name}"): {"spec": {}},
    ("PUT", "/api/v2/placementpolicies/{name}"): {"spec": {}},
    ("PUT", "/api/v2/failoverpolicies/{name}"): {"spec": {}},
    ("PUT", "/api/v2/gcpolicies/{name}"): {"spec": {}},
    ("PUT", "/api/v2/rolebindings/{name}"): {"spec": {"role": "viewer", "subjects": [{"kind": "token", "name": "ci"}]}},
    ("PUT", "/api/v2/roles/{name}"): {"spec": {}},
    ("PUT", "/api/v2/namespaces/{namespace}/microvms/{name}"): {"spec": SPEC},
    ("POST", "/api/v2/hosts/{name}/actions/adopt"): {"instance": "x", "namespace": "demo", "name": "web"},
    ("POST", "/api/v2/hosts/{name}/actions/purge"): {"left": "quarantine/x-1", "reason": "no longer needed"},
    ("POST", "/api/v2/jointokens"): {"role": "host"},
    ("POST", "/api/v2/join"): {"token": f"flj_{'0' * 26}.{'x' * 43}.{'0' * 64}", "name": "h1", "csr": "PEM"},
    ("POST", "/api/v2/authority/actions/rotate"): {},
    ("POST", "/api/v2/authority/actions/abort"): {},
    ("POST", "/api/v2/authority/actions/retire"): {},
    ("POST", "/api/v2/authority/actions/revoke"): {"kind": "host", "name": "h1", "reason": "stolen"},
    ("PUT", "/api/v2/failover/override"): {"for_s": 60, "reason": "burnt"},
    ("POST", "/api/v2/api-tokens"): {"name": "web"},
    ("POST", "/api/v2/api-tokens/{name}/actions/rotate"): {},
    ("POST", "/api/v2/gc/hold"): {"kind": "MicroVM", "namespace": "demo", "name": "web", "reason": "kept"},
    ("POST", "/api/v2/gc/release"): {"kind": "MicroVM", "namespace": "demo", "name": "web"},
    ("POST", "/api/v2/gc/run"): {"plan": f"1.1.{'0' * 32}"},
    ("POST", "/api/v2/raft/actions/transfer-leadership"): {},
    ("POST", "/api/v2/raft/members"): {"node": "n2", "address": "10.0.0.2:7101"},
    ("POST", "/api/v2/snapshots/{id}/chunks"): {"names": ["0" * 64]},
}


@dataclass(frozen=True)
class Asked:
    method: str
    template: str
    query: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.template}{self.query}"

    def send(self, api: Rig, *, straight: bool) -> requests.Response:
        path = self.template
        for name, value in NAMES.items():
            path = path.replace(name, value)
        assert "{" not in path, f"{self}: give its parameter a value in NAMES"
        options: dict[str, Any] = {"headers": {}}
        if "requestBody" in DOCUMENT["paths"][self.template][self.method.lower()]:
            assert (self.method, self.template) in BODIES, f"{self}: give it a body in BODIES"
            options["json"] = BODIES[self.method, self.template]
            if not straight:
                options["headers"]["Content-Type"] = "application/json; charset=utf-8"
        return api.request(self.method, f"/{path}{self.query}", **options)


def _routes() -> Iterator[tuple[Asked, set[str]]]:
    for template, operations in DOCUMENT["paths"].items():
        for method, operation in operations.items():
            parameters = {each["name"] for each in operation.get("parameters", ()) if each["in"] == "query"}
            yield Asked(method.upper(), template), parameters


REFUSED = [
    Asked(asked.method, asked.template, query)
    for asked, parameters in _routes()
    if (asked.method, asked.template) not in OWN
    for query in ("", *(["?dry_run=true"] if "dry_run" in parameters else []))
]
STALE = [
    Asked(asked.method, asked.template, "?consistency=stale")
    for asked, parameters in _routes()
    if "consistency" in parameters and not asked.template.endswith("/watch")
]


@pytest.fixture
def cut_off(api: Rig) -> Rig:
    """A node that knows a microVM, and hears neither n2 nor n3 any more."""
    api.with_host()
    api.active()
    _lose(api, hears=())
    return api


def _lose(api: Rig, *, hears: tuple[str, ...], since_s: float = 12.0) -> None:
    async def lose() -> None:
        api.replica.leaderless = api.members.leaderless = True
        api.replica.leaderless_s, api.replica.hears = since_s, hears

    api.run(lose())


@pytest.mark.parametrize("asked", REFUSED, ids=str)
@pytest.mark.parametrize("straight", [True, False], ids=["straight", "framework"])
def test_what_needs_the_newest_state_is_refused_with_the_reason(cut_off: Rig, asked: Asked, straight: bool) -> None:
    before = cut_off.digest
    answer = asked.send(cut_off, straight=straight)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (503, "no_majority"), answer.text
    assert "cannot reach a majority (2 voters): it hears nobody and not n2, n3" in problem["detail"]
    assert "no leader for 12 s" in problem["detail"]
    assert problem["contact"]["misses"] == ["n2", "n3"]
    assert "ask another node" in problem["hint"]
    assert int(answer.headers["Retry-After"]) >= 1
    assert float(answer.headers[AGE]) == 12.5
    assert cut_off.digest == before


@pytest.mark.parametrize("asked", STALE, ids=str)
def test_stale_reads_are_answered_and_say_how_old_they_may_be(cut_off: Rig, asked: Asked) -> None:
    answer = asked.send(cut_off, straight=True)
    assert answer.status_code != 503 or answer.json()["code"] == "host_unreachable", answer.text
    assert float(answer.headers[AGE]) == 12.5


@pytest.mark.parametrize(("method", "template"), sorted(OWN))
def test_what_a_node_says_of_itself_carries_its_age(cut_off: Rig, method: str, template: str) -> None:
    answer = Asked(method, template).send(cut_off, straight=True)
    assert answer.status_code < 500 or template == "/readyz"
    assert float(answer.headers[AGE]) == 12.5


def test_a_leader_is_no_reason_to_speak_of_age(api: Rig) -> None:
    api.with_host()
    api.active()
    assert AGE not in api.get(VM).headers
    assert float(api.get(VM, params={"consistency": "stale"}).headers[AGE]) == 0.1


def test_an_election_is_not_a_partition(api: Rig) -> None:
    _lose(api, hears=("n3",), since_s=1.0)
    answer = api.get("/microvms")
    assert (answer.status_code, answer.json()["code"]) == (503, "no_leader")
    assert "node n1 hears n3, and it has had no leader for 1 s" in answer.json()["detail"]
    ready = api.get("//readyz")
    assert (ready.status_code, ready.json()["code"]) == (503, "not_ready")
    assert "no leader is known" in ready.json()["detail"]


@pytest.mark.parametrize("query", ["", "&consistency=stale"])
def test_a_wait_does_not_take_a_partition_for_nothing_new(api: Rig, query: str) -> None:
    api.with_host()
    api.active()
    started = time.monotonic()
    wait = f"{VM}?wait_for=stopped&wait_s=3{query}"
    api.loop.call_soon_threadsafe(api.loop.call_later, 0.3, lambda: api.loop.create_task(_cut(api)))
    answer = api.get(wait)
    if query:
        assert (answer.status_code, answer.headers["Flintlock-Wait"]) == (200, "timeout")
        assert float(answer.headers[AGE]) > 1
    else:
        assert (answer.status_code, answer.json()["code"]) == (503, "no_majority")
        assert time.monotonic() - started < 2.5, "it is told before the wait is over"


async def _cut(api: Rig) -> None:
    api.replica.leaderless, api.replica.leaderless_s, api.replica.hears = True, 4.0, ()


def test_a_stream_ends_rather_than_be_silent(api: Rig) -> None:
    api.with_host()
    with api.get("/watch", stream=True) as stream:
        lines = stream.iter_lines(chunk_size=1, decode_unicode=True)
        assert next(lines).startswith(": watching")
        api.run(_cut(api))
        told = [line for line in lines if line and not line.startswith(":")]
    assert told[0] == "event: error"
    assert json.loads(told[1].removeprefix("data: "))["code"] == "no_majority"


def test_a_stale_stream_goes_on_and_says_since_when(api: Rig) -> None:
    api.with_host()
    _lose(api, hears=())
    with api.get("/watch?consistency=stale", stream=True) as stream:
        assert float(stream.headers[AGE]) == 12.5
        for line in stream.iter_lines(chunk_size=1, decode_unicode=True):
            if "heartbeat" in line:
                assert line == ": heartbeat, without a leader for 12 s"
                break
