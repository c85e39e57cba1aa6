"""Whatever is sent, the answer is one that the API describes: never a 500, and never a change by what is refused."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.api.rig import SPEC, Rig

BOUNDED = settings(max_examples=60, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["", "-", "a" * 300, "\ud800", "\x00", "10.0.0.1/24", "demo/kernel:6.1", "running"]),
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FULL: dict[str, Any] = {
    "labels": {"app": "web"},
    "annotations": {"note": "x"},
    "spec": {
        **SPEC,
        "kernel": {"image": "demo/kernel:6.1", "cmdline": {"console": "ttyS0"}},
        "initrd": {"image": "demo/initrd:1"},
        "root_volume": {"container_source": "demo/root:1"},
        "additional_volumes": {"data": {"kind": "local", "size_in_mb": 1}},
        "interfaces": {"eth1": {"type": "tap", "address": {"address": "10.0.0.2/24", "nameservers": ["1.1.1.1"]}}},
        "metadata": {"user-data": "x"},
        "placement": {"spread": {"by": "host"}},
        "recovery": {},
    },
}


@st.composite
def almost_right(draw: st.DrawFn) -> Any:
    """A good body with one part of it replaced, removed or added."""
    body = copy.deepcopy(FULL)
    at: Any = body
    while True:
        key = draw(st.sampled_from(sorted(at)))
        if isinstance(at[key], dict) and at[key] and draw(st.booleans()):
            at = at[key]
            continue
        action = draw(st.sampled_from(["replace", "remove", "add"]))
        if action == "replace":
            at[key] = draw(JSON)
        elif action == "remove":
            del at[key]
        else:
            at[draw(st.text(max_size=8))] = draw(JSON)
        return body


def send(api: Rig, method: str, path: str, body: Any) -> Any:
    before = api.digest
    # NaN, infinities and lone surrogates included: json.dumps writes them, and a client may.
    answer = api.request(method, path, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert api.digest == before
        assert answer.json()["errors"]
    return answer


@BOUNDED
@given(body=almost_right())
def test_microvms(api: Rig, body: Any) -> None:
    api.reset()
    api.put("/namespaces/demo", {"spec": {}})
    answer = send(api, "PUT", "/namespaces/demo/microvms/web", body)
    if answer.status_code == 201:
        again = api.put("/namespaces/demo/microvms/web", {"spec": answer.json()["spec"], **_labels(answer.json())})
        assert again.json()["changed"] is False


def _labels(resource: dict[str, Any]) -> dict[str, Any]:
    return {"labels": resource["labels"], "annotations": resource["annotations"]}


@BOUNDED
@given(
    body=JSON,
    path=st.sampled_from(["/namespaces/x", "/hosts/x", "/placementpolicies/x", "/namespaces/demo/microvms/x"]),
)
def test_any_json(api: Rig, body: Any, path: str) -> None:
    send(api, "PUT", path, body)


@BOUNDED
@given(
    body=st.fixed_dictionaries(
        {},
        optional={
            "atomic": SCALARS,
            "resources": st.lists(almost_right().map(lambda body: {**body, "kind": "MicroVM"}) | JSON, max_size=3),
            "delete": st.lists(st.fixed_dictionaries({"kind": SCALARS, "name": SCALARS}) | JSON, max_size=2),
            "idempotency_key": SCALARS,
        },
    )
)
def test_batches(api: Rig, body: Any) -> None:
    before = api.digest
    answer = api.request("POST", "/apply", data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert api.digest == before


@BOUNDED
@given(
    path=st.sampled_from(["/microvms", "/hosts", "/watch", "/drift", "/operations", "/namespaces/demo/microvms/web"]),
    name=st.sampled_from(["limit", "continue", "label", "name", "host", "kind", "wait_for", "wait_s", "class", "?"]),
    value=st.text(max_size=20),
)
def test_any_parameter(api: Rig, path: str, name: str, value: str) -> None:
    answer = api.get(path, params={name: value}, stream=True)
    assert answer.status_code < 500
    answer.close()
