"""Everything that can be wrong with a request: a problem that names the field, and a state that did not change."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from unit.api.rig import SPEC, TOKEN, Rig, served

VM = "/namespaces/demo/microvms/new"


@dataclass(frozen=True)
class Case:
    what: str
    method: str
    path: str
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 422
    code: str = "invalid"
    pointer: str | None = None
    raw: bytes | None = None


def spec(**changes: Any) -> dict[str, Any]:
    return {"spec": {**SPEC, **changes}}


CASES = [
    Case("not JSON", "PUT", VM, raw=b"{nope", pointer=""),
    Case("JSON that is not an object", "PUT", VM, [], pointer=""),
    Case("an endless number", "PUT", VM, raw=b'{"spec": {"vcpu": ' + b"9" * 5000 + b"}}", pointer=""),
    Case("too deep", "PUT", VM, raw=b"[" * 100_000, pointer=""),
    Case("not UTF-8", "PUT", VM, raw=b'{"spec": "\xff"}', pointer=""),
    Case("no body", "PUT", VM, raw=b"", pointer=""),
    Case(
        "wrong media type",
        "PUT",
        VM,
        raw=b"spec: {}",
        headers={"Content-Type": "application/yaml"},
        status=415,
        code="unsupported_media_type",
        pointer="/header/content-type",
    ),
    Case("no spec", "PUT", VM, {}, pointer="/spec"),
    Case("unknown field at the top", "PUT", VM, {**spec(), "metadata": {}}, pointer="/metadata"),
    Case("unknown field in the spec", "PUT", VM, spec(cpu=1), pointer="/spec/cpu"),
    Case("unknown field deeper", "PUT", VM, spec(kernel={"image": "a", "file": "x"}), pointer="/spec/kernel/file"),
    Case("too few vcpu", "PUT", VM, spec(vcpu=0), pointer="/spec/vcpu"),
    Case("a word for a number", "PUT", VM, spec(vcpu="many"), pointer="/spec/vcpu"),
    Case("half a vcpu", "PUT", VM, spec(vcpu=1.5), pointer="/spec/vcpu"),
    Case("null for what is required", "PUT", VM, spec(memory_in_mb=None), pointer="/spec/memory_in_mb"),
    Case("an image with a space", "PUT", VM, spec(kernel={"image": "my kernel"}), pointer="/spec/kernel/image"),
    Case(
        "a newline in a kernel argument",
        "PUT",
        VM,
        spec(kernel={"image": "k", "cmdline": {"a": "b\nc"}}),
        pointer="/spec/kernel/cmdline/a",
    ),
    Case("a bad MAC", "PUT", VM, spec(interfaces={"e": {"guest_mac": "x"}}), pointer="/spec/interfaces/e/guest_mac"),
    Case("a bad key of a map", "PUT", VM, spec(interfaces={"e/0": {}}), pointer="/spec/interfaces/e~10"),
    Case(
        "an address without prefix",
        "PUT",
        VM,
        spec(interfaces={"e": {"address": {"address": "10.0.0.2"}}}),
        pointer="/spec/interfaces/e/address/address",
    ),
    Case("an unknown power state", "PUT", VM, spec(power_state="on"), pointer="/spec/power_state"),
    Case("an unknown drift policy", "PUT", VM, spec(drift_policy="ignore"), pointer="/spec/drift_policy"),
    Case("a bad label key", "PUT", VM, {**spec(), "labels": {"-x": "1"}}, pointer="/labels/-x"),
    Case("a bad label value", "PUT", VM, {**spec(), "labels": {"x": "a b"}}, pointer="/labels/x"),
    Case("a label that is a number", "PUT", VM, {**spec(), "labels": {"x": 1}}, pointer="/labels/x"),
    Case("too much metadata", "PUT", VM, spec(metadata={"u": "x" * 65_537}), pointer="/spec/metadata/u"),
    Case("a bad microVM name", "PUT", "/namespaces/demo/microvms/Web_1", spec(), pointer="/name"),
    Case("a bad namespace name", "PUT", "/namespaces/De%20mo/microvms/web", spec(), pointer="/namespace"),
    Case("a name of 64 characters", "PUT", "/namespaces/" + "n" * 64, {}, pointer="/name"),
    Case(
        "a namespace that does not exist",
        "PUT",
        "/namespaces/nowhere/microvms/web",
        spec(),
        status=404,
        code="namespace_not_found",
        pointer="/namespace",
    ),
    Case(
        "a policy that does not exist",
        "PUT",
        VM,
        spec(placement={"policy": "none"}),
        code="policy_not_found",
        pointer="/spec/placement/policy",
    ),
    Case(
        "a field that needs a replacement",
        "PUT",
        "/namespaces/demo/microvms/web",
        spec(provider="qemu"),
        status=409,
        code="requires_replacement",
        pointer="/spec/provider",
    ),
    Case("a negative quota", "PUT", "/namespaces/x", {"spec": {"max_vcpu": -1}}, pointer="/spec/max_vcpu"),
    Case(
        "a spread by nothing",
        "PUT",
        "/placementpolicies/x",
        {"spec": {"spread": {"max_per": 0}}},
        pointer="/spec/spread/max_per",
    ),
    Case("a host field that is not one", "PUT", "/hosts/x", {"spec": {"cordoned": True}}, pointer="/spec/cordoned"),
    Case("a weak ETag", "PUT", VM, spec(), {"If-Match": 'W/"1"'}, pointer="/header/if-match"),
    Case("If-None-Match of a revision", "PUT", VM, spec(), {"If-None-Match": '"1"'}, pointer="/header/if-none-match"),
    Case(
        "both preconditions",
        "PUT",
        VM,
        spec(),
        {"If-Match": '"1"', "If-None-Match": "*"},
        pointer="/header/if-match",
    ),
    Case("an empty idempotency key", "PUT", VM, spec(), {"Idempotency-Key": ""}, pointer="/header/idempotency-key"),
    Case(
        "a long idempotency key",
        "PUT",
        VM,
        spec(),
        {"Idempotency-Key": "k" * 129},
        pointer="/header/idempotency-key",
    ),
    Case("a misspelt parameter", "PUT", VM + "?dryrun=true", spec(), pointer="/query/dryrun"),
    Case("a dry run that is neither", "PUT", VM + "?dry_run=maybe", spec(), pointer="/query/dry_run"),
    Case("an unknown action", "POST", "/namespaces/demo/microvms/web/actions/explode", pointer="/action"),
    Case(
        "an action on nothing",
        "POST",
        "/namespaces/demo/microvms/none/actions/stop",
        status=404,
        code="not_found",
        pointer="/name",
    ),
    Case("a limit of nothing", "GET", "/microvms?limit=0", pointer="/query/limit"),
    Case("a limit that is too high", "GET", "/microvms?limit=5001", pointer="/query/limit"),
    Case("a selector without a value", "GET", "/microvms?label=app", pointer="/query/label"),
    Case("two values of one label", "GET", "/microvms?label=a=1&label=a=2", pointer="/query/label"),
    Case("a token of someone else", "GET", "/microvms?continue=%21", pointer="/query/continue"),
    Case("an unknown consistency", "GET", "/microvms?consistency=eventual", pointer="/query/consistency"),
    Case("an unknown wait", "GET", "/namespaces/demo/microvms/web?wait_for=happy", pointer="/query/wait_for"),
    Case("a long wait", "GET", "/namespaces/demo/microvms/web?wait_for=gone&wait_s=61", pointer="/query/wait_s"),
    Case("a wait for ever", "GET", "/namespaces/demo/microvms/web?wait_for=gone&wait_s=inf", pointer="/query/wait_s"),
    Case("a watch of the future", "GET", "/watch?from=99999", pointer="/query/from"),
    Case("a watch of an unknown kind", "GET", "/watch?kind=Pod", pointer="/query/kind"),
    Case("a bad uid", "GET", "/microvms/by-uid/web", pointer="/uid"),
    Case("no such path", "GET", "/pods", status=404, code="not_found"),
    Case("no such method", "POST", "/namespaces", status=405, code="method_not_allowed"),
    Case("an empty item", "POST", "/apply", {"resources": [{}]}, pointer="/resources/0/kind"),
    Case("an item of an unknown kind", "POST", "/apply", {"resources": [{"kind": "Pod"}]}, pointer="/resources/0/kind"),
    Case(
        "a deletion of a microVM without namespace",
        "POST",
        "/apply",
        {"delete": [{"kind": "MicroVM", "name": "x"}]},
        pointer="/delete/0/namespace",
    ),
    Case(
        "an item that is there twice",
        "POST",
        "/apply",
        {"resources": [{"kind": "Host", "name": "x"}, {"kind": "Host", "name": "x"}]},
        pointer="/resources/1/name",
    ),
    Case(
        "a wrong item of an atomic batch",
        "POST",
        "/apply",
        {"resources": [{"kind": "Namespace", "name": "ok"}, {"kind": "Host", "name": "h", "spec": {"x": 1}}]},
        pointer="/resources/1/spec/x",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=[case.what for case in CASES])
def test_bad_input_is_named_and_changes_nothing(api: Rig, case: Case) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    api.put_vm("web")
    before = api.digest
    headers = dict(case.headers)
    options: dict[str, Any] = {"json": case.body}
    if case.raw is not None:
        options = {"data": case.raw}
        headers.setdefault("Content-Type", "application/json")
    answer = api.request(case.method, case.path, headers=headers, **options)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (case.status, case.code), answer.text
    assert problem["type"] == f"https://flintlock.dev/problems/{case.code}"
    assert problem["status"] == case.status
    assert problem["title"]
    assert problem["detail"]
    if case.pointer is not None:
        assert case.pointer in [error["pointer"] for error in problem["errors"]], answer.text
        assert all(error["message"] for error in problem["errors"])
    assert api.digest == before


def test_every_wrong_field_is_named_at_once(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    answer = api.put(VM, {"labels": {"x": "a b"}, "spec": {"vcpu": 0, "kernel": {}}})
    assert {error["pointer"] for error in answer.json()["errors"]} == {
        "/labels/x",
        "/spec/vcpu",
        "/spec/memory_in_mb",
        "/spec/kernel/image",
    }


def test_a_wrong_method_is_answered_with_every_right_one(api: Rig) -> None:
    for path, allowed in (("/namespaces/demo", "DELETE, GET, PUT"), ("/apply", "POST"), ("/hosts", "GET")):
        assert api.request("PATCH", path).headers["Allow"] == allowed


def test_a_problem_never_repeats_what_was_sent(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    secret = "hunter2-" * 10_000
    answer = api.put(VM, spec(metadata={"user-data": secret}))
    assert answer.status_code == 422
    assert "hunter2" not in answer.text
    assert len(answer.text) < 1000


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("path", "limit"), [(VM, 1024 * 1024), ("/apply", 16 * 1024 * 1024)])
def test_large_bodies_are_refused_whether_their_length_is_said_or_not(api: Rig, path: str, limit: int) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    before = api.digest
    body = b'{"pad": "' + b"x" * limit + b'"}'
    method = "POST" if path == "/apply" else "PUT"
    headers = {"Content-Type": "application/json"}

    def chunks() -> Any:
        for start in range(0, len(body), 65_536):
            yield body[start : start + 65_536]

    answer = api.request(method, path, data=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    answer = api.request(method, path, data=chunks(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")
    assert api.digest == before


def test_a_body_that_does_not_come_is_not_waited_for(tmp_path: Path) -> None:
    with served(tmp_path, body_timeout_s=0.3) as api:
        context = ssl.create_default_context(cafile=str(api.session.verify))
        with (
            socket.create_connection(api.server.address, timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as stream,
        ):
            head = f"PUT /api/v2/namespaces/demo HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\n"
            stream.sendall(head.encode() + b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{")
            answer = b""
            while chunk := stream.recv(65_536):
                answer += chunk
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b'"code":"request_timeout"' in answer
        assert "demo" not in api.replica.state.namespaces


def test_a_body_just_below_the_limit_is_read(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    body = b'{"spec": {}}'.ljust(1024 * 1024)
    answer = api.request("PUT", "/namespaces/demo", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200, answer.text
