"""Who may ask, and what is open to everyone."""

from __future__ import annotations

import pytest
import requests
from unit.api.rig import SPEC, TOKEN, Rig


@pytest.mark.parametrize(
    "authorization",
    [None, "", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \xe9"],
)
@pytest.mark.parametrize("path", ["/microvms", "/nowhere", "/cluster", "//elsewhere", "/watch"])
def test_without_a_valid_token_nothing_is_answered(api: Rig, authorization: str | None, path: str) -> None:
    headers = {"Authorization": authorization}
    answer = api.get(path, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_write_without_a_token_changes_nothing_and_its_body_is_not_looked_at(api: Rig) -> None:
    before = api.digest
    for body in (b'{"spec": {}}', b"{nope"):
        answer = api.request(
            "PUT",
            "/namespaces/demo",
            data=body,
            headers={"Authorization": None, "Content-Type": "application/json"},
        )
        assert answer.status_code == 401
    assert api.digest == before


@pytest.mark.parametrize("path", ["//healthz", "//readyz", "/openapi.json", "//openapi.json", "/docs", "//docs"])
def test_probes_and_the_description_are_open(api: Rig, path: str) -> None:
    answer = requests.get(api.url(path), verify=api.session.verify, timeout=10)
    assert answer.status_code == 200, answer.text


def test_plain_http_is_not_spoken(api: Rig) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(api.url("//healthz").replace("https:", "http:"), timeout=10)


def test_the_actor_of_a_write_is_whom_the_token_names(api: Rig) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    api.put("/namespaces/demo/microvms/web", {"spec": SPEC})
    (operation,) = api.get("/operations").json()["items"]
    assert operation["actor"] == "alice"
