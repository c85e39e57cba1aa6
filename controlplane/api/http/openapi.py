"""The OpenAPI document: what the framework derives, with the API's own problems in place of the framework's errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from controlplane.api.http import problems, shapes
from controlplane.api.http.access_rules import About, needs_of

TITLE = "Flintlock control plane"
_REF = "#/components/schemas/{model}"
_DESCRIPTION = (
    "Declares microVMs, their namespaces, hosts and policies. Every answer carries `Flintlock-Revision`, the state"
    " revision of the replica that answered. Reads see every write acknowledged before them unless"
    " `consistency=stale`; those, and every answer of a node without a leader, carry `Flintlock-Age`: what was"
    " acknowledged elsewhere in the last so many seconds may be missing. Refusals are RFC 9457 problems with a stable"
    " `code` and JSON pointers to the fields."
)


def describe(app: FastAPI, prefix: str) -> dict[str, Any]:
    """The document, made once. What is below `prefix` needs a token, as the authentication in front of it says."""
    if app.openapi_schema:
        return app.openapi_schema
    document = get_openapi(
        title=TITLE, version=app.version, description=_DESCRIPTION, routes=app.routes, servers=[{"url": "/"}]
    )
    schemas = document["components"]["schemas"]
    # What no route names as its model: the data of events, and problems.
    _, extra = models_json_schema(
        [(shapes.WatchData, "serialization"), (problems.Problem, "serialization")], ref_template=_REF
    )
    for name, schema in extra["$defs"].items():
        schemas.setdefault(name, schema)
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    refusal = {
        "description": "A problem.",
        "content": {problems.MEDIA_TYPE: {"schema": {"$ref": _REF.format(model="Problem")}}},
    }
    document["components"]["securitySchemes"] = {
        "token": {"type": "http", "scheme": "bearer", "description": "A token of this cluster."}
    }
    for name, path in document["paths"].items():
        for method, operation in path.items():
            access = operation["x-flintlock-access"] = _access(method, name.removeprefix(prefix))
            if access["about"] != About.OPEN.value:
                operation["security"] = [{"token": []}]
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = refusal
    app.openapi_schema = document
    return document


def _access(method: str, path: str) -> dict[str, str]:
    """What the route needs, for readers and for the table of tests."""
    needs = needs_of(method.upper(), path)
    if needs.about in (About.OPEN, About.CALLER, About.BODY):
        return {"about": needs.about.value}
    return {"about": needs.about.value, "verb": needs.verb.value, "kind": needs.kind.value}
