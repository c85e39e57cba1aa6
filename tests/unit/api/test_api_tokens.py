"""API tokens as their makers, their users and their thieves meet them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest
import requests
from unit.api.rig import SPEC, Rig, eventually

from controlplane.identity.tokens import digest_of, new_token
from controlplane.model.api_tokens import ApiTokenSpec
from controlplane.model.commands import CreateApiToken, RotateApiToken

VM = "/namespaces/demo/microvms/web"


def make(api: Rig, name: str = "ci", by: Mapping[str, str] | None = None, **body: Any) -> requests.Response:
    return api.post("/api-tokens", {"name": name, **body}, headers=by or {})


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def made(api: Rig, name: str = "ci", by: Mapping[str, str] | None = None, **body: Any) -> dict[str, str]:
    """The header of a token that is made."""
    answer = make(api, name, by, **body)
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["secret"])


def test_the_secret_is_told_once_and_is_nowhere_else(api: Rig, caplog: pytest.LogCaptureFixture) -> None:
    answer = make(api, user="alice", groups=["web"], description="the pipeline")
    secret = answer.json()["secret"]
    assert re.fullmatch(r"flk_[A-Za-z0-9_-]{43}", secret)
    assert answer.headers["Cache-Control"] == "no-store"
    api.bind("web", "viewer", subject="group/web")
    assert api.get("/namespaces", headers=bearer(secret)).status_code == 200
    told = [api.get("/api-tokens"), api.get("/api-tokens/ci"), api.delete("/api-tokens/ci")]
    for each in told:
        assert secret not in each.text
        assert digest_of(secret) not in each.text
    (listed,) = told[0].json()["items"]
    assert (listed["name"], listed["user"], listed["groups"], listed["created_by"]) == ("ci", "alice", ["web"], "alice")
    assert secret not in caplog.text
    assert digest_of(secret) not in caplog.text


def test_a_token_may_what_is_bound_to_its_name_user_and_groups_and_is_the_actor(api: Rig) -> None:
    token = made(api, user="bob", groups=["web"])
    assert api.get("/namespaces/demo", headers=token).status_code == 403
    api.bind("ci", "viewer")
    assert api.get("/namespaces/demo", headers=token).status_code == 404
    api.bind("bobs", "admin", subject="user/bob")
    assert api.put("/namespaces/demo", {"spec": {}}, headers=token).status_code == 201
    whoami = api.get("/auth/whoami", headers=token).json()
    assert whoami["name"] == "token/ci"
    assert [f"{each['kind']}/{each['name']}" for each in whoami["subjects"]] == ["token/ci", "user/bob", "group/web"]
    assert whoami["expires_at"] is not None


def test_a_limit_only_takes_away(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    api.put("/namespaces/other", {"spec": {}})
    api.bind("operates", "operator", subject="user/bob")
    limit = {"verbs": ["read", "declare"], "namespaces": ["demo"]}
    token = made(api, user="bob", limit=limit)
    assert api.put(VM, {"spec": SPEC}, headers=token).status_code == 201
    assert api.put(VM.replace("demo", "other"), {"spec": SPEC}, headers=token).status_code == 403
    assert api.delete(VM, headers=token).status_code == 403
    assert api.get("/hosts", headers=token).status_code == 403
    assert api.get("/auth/whoami", headers=token).json()["limits"] == [limit]
    # It gives nothing that the bindings do not.
    assert api.put(VM, {"spec": SPEC}, headers=made(api, "idle", limit=limit)).status_code == 403


@pytest.mark.parametrize(
    "sent",
    [
        "flk_" + "A" * 43,
        "flk_" + "A" * 42,
        "flk_" + "A" * 44,
        "flk_",
        "0" * 64,
        "A" * 17_000,
        "..",
        "a.b.c",
    ],
    ids=["guessed", "short", "long", "empty", "a digest", "giant", "dots", "a JWT where there is no issuer"],
)
def test_what_is_nobodys_is_refused_and_says_nothing(api: Rig, sent: str) -> None:
    made(api)
    answer = api.get("/namespaces", headers=bearer(sent))
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert "ci" not in answer.json()["detail"].split()


def test_the_digest_of_a_secret_is_no_secret(api: Rig) -> None:
    secret = make(api).json()["secret"]
    for each in (
        digest_of(secret),
        "flk_" + digest_of(secret),
        "flk_" + digest_of(secret)[:43],
        secret[:-1],
        secret + "A",
    ):
        assert api.get("/auth/whoami", headers=bearer(each)).status_code == 401


def test_a_revoked_token_is_refused_at_once_and_its_streams_end(api: Rig) -> None:
    api.bind("views", "viewer", subject="group/web")
    token = made(api, groups=["web"])
    with api.get("/watch", headers=token, stream=True, timeout=10) as stream:
        assert api.delete("/api-tokens/ci").status_code == 200
        answer = api.get("/namespaces", headers=token)
        assert (answer.status_code, answer.json()["detail"]) == (401, "the bearer token is not known")
        api.put("/namespaces/secret", {"spec": {}})
        made(api, "next", groups=["web"])
        with api.get("/watch?from=0", headers=token, stream=True) as later:
            assert later.status_code == 401
        told = stream.raw.read().decode()
        assert "secret" not in told
        assert "event: error" in told
        assert "the stream's credential has ended: the bearer token is not known" in told


def test_a_stream_ends_when_its_secret_was_rotated_away(api: Rig) -> None:
    api.bind("ci", "viewer")
    token = made(api)
    with api.get("/watch", headers=token, stream=True, timeout=10) as stream:
        assert api.post("/api-tokens/ci/actions/rotate", {}).status_code == 200
        assert "the stream's credential has ended" in stream.raw.read().decode()


def test_another_token_of_the_same_name_is_another_one(api: Rig) -> None:
    first = made(api)
    api.delete("/api-tokens/ci")
    second = made(api)
    assert api.get("/auth/whoami", headers=first).status_code == 401
    assert api.get("/auth/whoami", headers=second).status_code == 200


def test_an_expired_token_says_so(api: Rig) -> None:
    secret, now = new_token(), api.replica.clock.now_ms()
    expired = CreateApiToken(name="old", uid="old", spec=ApiTokenSpec(), sha256=digest_of(secret), expires_at=now + 60)
    api.run(api.replica.propose(expired, actor="alice"))
    eventually(lambda: api.get("/auth/whoami", headers=bearer(secret)).status_code == 401, "it has expired")
    answer = api.get("/auth/whoami", headers=bearer(secret)).json()
    assert answer["detail"].startswith("API token old expired at 20")


def test_a_stream_ends_with_its_credential(api: Rig) -> None:
    secret, now = new_token(), api.replica.clock.now_ms()
    soon = CreateApiToken(name="soon", uid="soon", spec=ApiTokenSpec(), sha256=digest_of(secret), expires_at=now + 1500)
    api.run(api.replica.propose(soon, actor="alice"))
    with api.get("/watch", headers=bearer(secret), stream=True) as stream:
        assert stream.status_code == 200
        assert "has expired" in stream.raw.read().decode()


def test_a_rotated_secret_is_good_for_the_overlap_alone(api: Rig) -> None:
    first = made(api)
    rotated = api.post("/api-tokens/ci/actions/rotate", {"overlap_s": 3600})
    second = bearer(rotated.json()["secret"])
    assert [api.get("/auth/whoami", headers=each).status_code for each in (first, second)] == [200, 200]
    third = bearer(api.post("/api-tokens/ci/actions/rotate", {}).json()["secret"])
    assert [api.get("/auth/whoami", headers=each).status_code for each in (first, second, third)] == [401, 401, 200]
    token = api.replica.state.api_tokens["ci"]
    secret = new_token()
    brief = RotateApiToken(
        name="ci",
        uid=token.uid,
        sha256=digest_of(secret),
        expires_at=token.expires_at,
        retired_until=api.replica.clock.now_ms() + 30,
    )
    api.run(api.replica.propose(brief, actor="alice"))
    eventually(lambda: api.get("/auth/whoami", headers=third).status_code == 401, "the overlap is over")
    assert "was rotated" in api.get("/auth/whoami", headers=third).json()["detail"]
    assert api.get("/auth/whoami", headers=bearer(secret)).status_code == 200


# -- nobody makes a token that may do more than he may -----------------------------------------------------------------


@pytest.fixture
def bob(api: Rig) -> Mapping[str, str]:
    """An operator by his group."""
    api.bind("operates", "operator", subject="group/web")
    api.bind("payments", "admin", subject="token/payments")
    api.bind("other-group", "viewer", subject="group/other")
    return api.caller("bobs-laptop", user="bob", groups=["web"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"name": "x", "user": "alice"}, "/user"),
        ({"name": "x", "groups": ["web", "other"]}, "/groups/1"),
        ({"name": "payments"}, "/name"),
    ],
    ids=["as another user", "in another group", "under a name that is bound to more"],
)
def test_nobody_makes_a_token_that_may_more(api: Rig, bob: Mapping[str, str], body: Any, pointer: str) -> None:
    before = api.digest
    answer = api.post("/api-tokens", body, headers=bob)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (403, pointer), answer.text
    assert api.digest == before
    assert api.post("/api-tokens", body).status_code == 201, "an administrator could give himself everything"


def test_everybody_may_make_a_token_for_himself_and_for_less(api: Rig, bob: Mapping[str, str]) -> None:
    token = made(api, by=bob, user="bob", groups=["web"], limit={"verbs": ["read"], "namespaces": ["*"]})
    assert api.get("/hosts", headers=token).status_code == 200
    assert api.put("/namespaces/demo", {"spec": {}}, headers=token).status_code == 403


def test_nobody_handles_a_token_that_may_more(api: Rig, bob: Mapping[str, str]) -> None:
    made(api, "payments")
    for answer in (
        api.post("/api-tokens/payments/actions/rotate", {}, headers=bob),
        api.delete("/api-tokens/payments", headers=bob),
    ):
        assert answer.status_code == 403
        assert "could" in answer.json()["detail"]
    assert api.get("/api-tokens/payments", headers=bob).status_code == 200


def test_a_token_that_a_token_made_keeps_its_limits_and_does_not_outlive_it(api: Rig, bob: Mapping[str, str]) -> None:
    limit = {"verbs": ["read", "declare"], "namespaces": ["*"]}
    parent = made(api, "parent", by=bob, groups=["web"], limit=limit, ttl_s=3600)
    child = made(api, "child", by=parent, groups=["web"], ttl_s=86_400)
    shown = api.get("/api-tokens/child").json()
    assert limit in shown["limits"]
    assert shown["expires_at"] <= api.get("/api-tokens/parent").json()["expires_at"]
    # What the group is given later does not reach it either.
    api.put("/namespaces/demo", {"spec": {}})
    api.put(VM, {"spec": SPEC})
    assert api.delete(VM, headers=child).status_code == 403
    # Nor does it get at a token with fewer limits, by rotating it.
    made(api, "wide", by=bob, groups=["web"])
    refused = api.post("/api-tokens/wide/actions/rotate", {}, headers=parent)
    assert (refused.status_code, "limited in ways" in refused.json()["detail"]) == (403, True)
    renewed = api.post("/api-tokens/parent/actions/rotate", {"ttl_s": 86_400}, headers=parent)
    assert renewed.json()["expires_at"] == api.get("/api-tokens/parent").json()["expires_at"] == shown["expires_at"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/name"),
        ({"name": "A"}, "/name"),
        ({"name": "x", "user": "two words"}, "/user"),
        ({"name": "x", "groups": ["ok", "\n"]}, "/groups/1"),
        ({"name": "x", "ttl_s": 59}, "/ttl_s"),
        ({"name": "x", "ttl_s": 366 * 86_400}, "/ttl_s"),
        ({"name": "x", "limit": {"verbs": []}}, "/limit/verbs"),
        ({"name": "x", "limit": {"verbs": ["fly"]}}, "/limit/verbs/0"),
        ({"name": "x", "limit": {"roles": ["admin"]}}, "/limit/roles"),
        ({"name": "x", "secret": "mine"}, "/secret"),
        ({"name": "x", "description": "a\nb"}, "/description"),
    ],
)
def test_bad_input_names_its_field_and_changes_nothing(api: Rig, body: Any, pointer: str) -> None:
    before = api.digest
    answer = api.post("/api-tokens", body)
    assert (answer.status_code, answer.json()["errors"][0]["pointer"]) == (422, pointer), answer.text
    assert api.digest == before


def test_a_name_is_taken_once(api: Rig) -> None:
    made(api)
    answer = make(api)
    assert (answer.status_code, answer.json()["code"]) == (412, "already_exists")
    for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/actions/rotate")):
        options = {"json": {}} if method == "POST" else {}
        assert api.request(method, f"//api/v2/api-tokens/absent{path}", **options).status_code == 404


def test_the_last_use_is_told_and_only_once_in_an_interval(api: Rig) -> None:
    token = made(api)
    assert api.get("/api-tokens/ci").json()["last_used_at"] is None
    api.get("/auth/whoami", headers=token)
    api.run(api.uses.tell())
    first = api.get("/api-tokens/ci").json()["last_used_at"]
    assert first is not None
    revision = api.replica.state.revision
    for _ in range(5):
        api.get("/auth/whoami", headers=token)
        api.run(api.uses.tell())
    assert api.replica.state.revision == revision
    assert json.loads(api.get("/api-tokens/ci").text)["last_used_at"] == first
