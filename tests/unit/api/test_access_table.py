"""Every route of the OpenAPI document, asked by every built-in role: everywhere, in its own namespace, in another's.

What is expected is written down here once more, by hand, and independently of the code that decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from unit.api.rig import SPEC, Rig
from unit.api.test_partition import BODIES, DOCUMENT, NAMES

from controlplane.api.http.access_rules import ROUTES, needs_of
from controlplane.model.access import BUILT_IN

READS = {
    f"read {kind}"
    for kind in (
        "Host",
        "Namespace",
        "MicroVM",
        "MicroVMGroup",
        "PlacementPolicy",
        "FailoverPolicy",
        "GCPolicy",
        "Operation",
        "Role",
        "RoleBinding",
        "ApiToken",
        "Cluster",
        "Collection",
    )
}
OPERATES = {
    "declare MicroVM",
    "delete MicroVM",
    "act MicroVM",
    "hold MicroVM",
    "console MicroVM",
    "declare MicroVMGroup",
    "delete MicroVMGroup",
    "declare PlacementPolicy",
    "delete PlacementPolicy",
    "declare FailoverPolicy",
    "delete FailoverPolicy",
    "act Host",
    "hold Host",
    "confirm Host",
    "act Collection",
    "declare ApiToken",
    "delete ApiToken",
}
ADMINISTERS = {
    "declare Host",
    "delete Host",
    "declare Namespace",
    "delete Namespace",
    "declare GCPolicy",
    "delete GCPolicy",
    "declare Role",
    "delete Role",
    "declare RoleBinding",
    "delete RoleBinding",
    "act Cluster",
    "read JoinToken",
    "declare JoinToken",
    "delete JoinToken",
    "read Certificate",
    "act Certificate",
    "read Snapshot",
    "read Audit",
}
MAY = {
    "viewer": READS,
    "operator": READS | OPERATES,
    "admin": READS | OPERATES | ADMINISTERS,
    "provisioner": {"read Host", "read Cluster", "declare Host", "delete Host", "act Host"}
    | {"read JoinToken", "declare JoinToken", "delete JoinToken", "read Certificate"},
    "host": set[str](),
    "node": set[str](),
}
IN_NAMESPACES = {"MicroVM", "MicroVMGroup", "Operation", "Namespace"}
OF_ONE = {"/api/v2/microvms/by-uid/{uid}": "read MicroVM", "/api/v2/operations/{id}": "read Operation"}
"""About one object, that only its handler can find."""
OF_BODY = {
    "/api/v2/apply": "declare MicroVM",
    "/api/v2/api-tokens": "declare ApiToken",
    "/api/v2/gc/hold": "hold MicroVM",
    "/api/v2/gc/release": "hold MicroVM",
}
APPLIED = {"resources": [{"kind": "MicroVM", "namespace": "demo", "name": "web", "spec": SPEC}]}


def _routes() -> Iterator[tuple[str, str, dict[str, str]]]:
    """(method, path, what it needs), deletions last: what they end is asked for by the others."""
    routes = [
        (method.upper(), path, operation["x-flintlock-access"])
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
    ]
    yield from sorted(routes, key=lambda route: route[0] == "DELETE")


def _expected(role: str, where: str, path: str, needs: dict[str, str]) -> bool:
    about = needs["about"]
    if about in ("open", "caller"):
        return True
    pair = OF_ONE.get(path) or (OF_BODY.get(path) if about == "body" else None) or f"{needs['verb']} {needs['kind']}"
    if pair not in MAY[role]:
        return False
    if where == "everywhere":
        return True
    if pair.split()[1] not in IN_NAMESPACES or about == "whole":
        return False
    # A list leaves out what is not the caller's.
    return where == "own" or (about == "some" and path not in OF_ONE)


CASES = [(role, "everywhere") for role in BUILT_IN] + [
    (role, where) for role in BUILT_IN if role not in ("host", "node") for where in ("own", "foreign")
]


@pytest.mark.parametrize(("role", "where"), CASES)
def test_each_route_is_open_to_those_who_may_and_to_nobody_else(api: Rig, role: str, where: str) -> None:
    api.put("/namespaces/demo", {"spec": {}})
    api.put("/namespaces/elsewhere", {"spec": {}})
    declared = api.put("/namespaces/demo/microvms/web", {"spec": SPEC}).json()
    (operation,) = api.get("/operations").json()["items"]
    if where != "everywhere":
        api.bind("somebody", role, "demo" if where == "own" else "elsewhere")
    headers = api.caller("somebody", roles=[role] if where == "everywhere" else [])
    wrong: list[str] = []
    for method, template, needs in _routes():
        path = template.replace("{uid}", declared["uid"])
        if template == "/api/v2/operations/{id}":
            path = template.replace("{id}", operation["id"])
        for name, value in NAMES.items():
            path = path.replace(name, "demo" if template.startswith("/api/v2/namespaces/{name}") else value)
        options: dict[str, Any] = {"headers": headers, "stream": template == "/api/v2/watch"}
        if (method, template) in BODIES:
            options["json"] = APPLIED if template == "/api/v2/apply" else BODIES[method, template]
        answer = api.request(method, f"/{path}", **options)
        refused = answer.status_code == 403
        answer.close()
        if refused is _expected(role, where, template, needs):
            wrong.append(f"{method} {template}: {answer.status_code}")
    assert not wrong, f"{role}, {where}: {wrong}"


def test_every_route_has_a_rule_and_every_rule_a_route() -> None:
    described = {
        f"{method.upper()} {path.removeprefix('/api/v2')}"
        for path, each in DOCUMENT["paths"].items()
        for method in each
    }
    assert described == set(ROUTES)


def test_a_route_without_a_rule_fails_the_build() -> None:
    with pytest.raises(TypeError, match="GET /treasure has no rule"):
        needs_of("GET", "/treasure")
