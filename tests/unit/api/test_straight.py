"""The straight way and the framework's give the same answers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import APIRouter, BackgroundTasks, FastAPI, Query, Request
from starlette.responses import Response
from unit.api.rig import SPEC, Rig

from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.straight import Straight

VM = "/namespaces/demo/microvms/web"
UNUSUAL = {"Content-Type": "application/json; charset=utf-8", "X-Request-Id": "same"}
"""Of this media type no plan is sure, so that the framework serves the request."""
STRAIGHT = {"Content-Type": "application/json", "X-Request-Id": "same"}
_MADE_UP = re.compile(r'"(uid|created_at|updated_at|since|operation)":"[^"]*"')


@dataclass(frozen=True)
class Asked:
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict[str, str])


CASES = {
    "create": Asked("PUT", VM, {"spec": SPEC, "labels": {"a": "b"}}),
    "only create": Asked("PUT", VM, {"spec": SPEC}, {"If-None-Match": "*"}),
    "a revision that is none": Asked("PUT", VM, {"spec": SPEC}, {"If-Match": "x"}),
    "both preconditions": Asked("PUT", VM, {"spec": SPEC}, {"If-Match": '"1"', "If-None-Match": "*"}),
    "a dry run": Asked("PUT", VM + "?dry_run=true", {"spec": SPEC}),
    "a query that is none": Asked("PUT", VM + "?dryrun=true", {"spec": SPEC}),
    "a dry run of two minds": Asked("PUT", VM + "?dry_run=true&dry_run=no", {"spec": SPEC}),
    "no spec": Asked("PUT", VM, {}),
    "a lax number": Asked("PUT", VM, {"spec": {**SPEC, "vcpu": "2"}}),
    "a number that is none": Asked("PUT", VM, {"spec": {**SPEC, "vcpu": "two"}}),
    "a name that is none": Asked("PUT", "/namespaces/demo/microvms/We b", {"spec": SPEC}),
    "no namespace": Asked("PUT", "/namespaces/none/microvms/web", {"spec": SPEC}),
    "a batch": Asked("POST", "/apply", {"resources": [{"kind": "Namespace", "name": "a"}]}),
    "half a batch": Asked(
        "POST", "/apply", {"atomic": False, "resources": [{"kind": "Namespace", "name": "a"}, {"kind": "Host"}]}
    ),
    "a wrong method": Asked("PATCH", VM, {"spec": SPEC}),
    "a key that is none": Asked("PUT", VM, {"spec": SPEC}, {"Idempotency-Key": "a b"}),
    "an action": Asked("POST", VM + "/actions/restart", {}),
}


@pytest.mark.parametrize("what", CASES)
def test_both_ways_answer_the_same(api: Rig, what: str) -> None:
    case = CASES[what]
    found: list[tuple[int, str, dict[str, str]]] = []
    for headers in (STRAIGHT, UNUSUAL):
        api.reset()
        api.put("/namespaces/demo", {})
        answer = api.request(case.method, case.path, json=case.body, headers={**case.headers, **headers})
        told = {name: text for name, text in answer.headers.items() if name.lower() not in ("date", "content-length")}
        found.append((answer.status_code, _MADE_UP.sub(r'"\1":""', answer.text), told))
    assert found[0] == found[1]


@pytest.mark.parametrize("headers", [STRAIGHT, UNUSUAL], ids=["straight", "framework"])
def test_an_unexpected_error_is_a_problem_on_both_ways(api: Rig, headers: dict[str, str]) -> None:
    api.with_host()
    api.agents.error = RuntimeError("secret path /etc/x")
    answer = api.put(VM, {"spec": SPEC}, params={"dry_run": "true"}, headers=headers)
    assert (answer.status_code, answer.json()["code"], answer.json()["request_id"]) == (500, "internal", "same")
    assert "secret" not in answer.text


def test_what_no_plan_is_made_of_is_not_served() -> None:
    router = APIRouter(route_class=StrictRoute)

    @router.get("/required")
    async def required(word: str = Query()) -> Response: ...

    @router.get("/task")
    async def task(tasks: BackgroundTasks) -> Response: ...

    @router.get("/thread")
    def thread(request: Request) -> Response: ...

    @router.get("/number/{number:int}")
    async def number(number: int) -> Response: ...

    @router.put("/list")
    async def listed(body: list[int]) -> Response: ...

    for route in router.routes:
        assert isinstance(route, StrictRoute)
        with pytest.raises(TypeError):
            Straight(FastAPI(), FastAPI(), [("", route)])
