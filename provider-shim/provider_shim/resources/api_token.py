"""`flintlock_api_token`: a credential of the API for as long as Terraform runs."""

from __future__ import annotations

import secrets
import time
from typing import Any, ClassVar

from provider_shim.client import ApiError, segment
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Path, attribute
from provider_shim.framework.duration import parse_duration_s
from provider_shim.framework.ephemeral import EphemeralResource
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import STRING, ListOf, Object
from provider_shim.framework.validate import at_most, duration
from provider_shim.resources.common import NAME
from provider_shim.resources.connection import Connection
from provider_shim.resources.problems import told_to_user

_FIELDS = {"user": "user", "groups": "groups", "ttl_s": "ttl", "description": "description", "limit": "verbs"}
_TRIES = 3
_CLOSE_S = 10.0


class _Locator:
    def path(self, pointer: str) -> Path:
        parts = pointer.strip("/").split("/")
        if parts[0] == "limit" and len(parts) > 1:
            return attribute(parts[1])
        return attribute(_FIELDS.get(parts[0], parts[0])) if parts[0] in (*_FIELDS, "name") else ()


def _names(description: str) -> Attribute:
    return Attribute(type=ListOf(STRING), optional=True, validators=(at_most(64),), description=description)


class ApiTokenResource(EphemeralResource):
    type_name = "flintlock_api_token"
    schema = Schema(
        description="An API token that is made when Terraform needs it and revoked at the end of the run: its secret "
        "is in no plan and no state. What it may do, role bindings say.",
        attributes={
            "name": Attribute(
                type=STRING,
                optional=True,
                computed=True,
                validators=(NAME,),
                description="`token/NAME` in role bindings. A random one if unset, so that runs do not meet.",
            ),
            "user": Attribute(type=STRING, optional=True, description="User that it speaks for."),
            "groups": _names("Groups that it speaks for."),
            "verbs": _names(
                "Only these may be done with it: `read`, `declare`, `delete`, ...; unset takes nothing away."
            ),
            "namespaces": _names("Only in these; unset takes nothing away."),
            "ttl": Attribute(
                type=STRING,
                default="1h",
                validators=(duration,),
                description="It ends so long after it was made, should the run be killed; at least `1m`.",
            ),
            "description": Attribute(type=STRING, optional=True, description="What it is for."),
            "secret": Attribute(
                type=STRING, computed=True, sensitive=True, description="What is sent as `Authorization: Bearer`."
            ),
            "uid": Attribute(type=STRING, computed=True, description="Identity that the control plane gave it."),
            "expires_at": Attribute(type=STRING, computed=True, description="When it ends by itself."),
        },
    )
    _SHOWN: ClassVar = ("name", "secret", "uid", "expires_at")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def open(self, call: Call, config: Object) -> Object:
        named: str | None = config.get("name")
        ttl: str = config.get("ttl") or "1h"
        body: dict[str, Any] = {
            "user": config.get("user"),
            "groups": config.get("groups") or [],
            "limit": {"verbs": config.get("verbs") or ["*"], "namespaces": config.get("namespaces") or ["*"]},
            "description": config.get("description") or "made by Terraform",
            "ttl_s": round(parse_duration_s(ttl)),
        }
        with told_to_user(f"make the API token {named or 'of this run'}", _Locator()):
            made = self._make(named, body)
        call.private = {"name": made["name"]}
        return {**config, "ttl": ttl, **{name: made[name] for name in self._SHOWN}}

    def close(self, call: Call) -> None:
        name = str(call.private["name"])
        with told_to_user(f"revoke API token {name}", _Locator()):
            try:
                self._connection.client().send(
                    "DELETE",
                    f"/api-tokens/{segment(name)}",
                    deadline=time.monotonic() + _CLOSE_S,
                    interruptible=False,
                )
            except ApiError as refusal:
                if refusal.code != "not_found":
                    raise

    def _make(self, named: str | None, body: dict[str, Any]) -> dict[str, Any]:
        """The token with its secret. A random name may be taken by a request of ours whose answer was lost: that token
        ends by itself, and another name is tried."""
        for left in reversed(range(_TRIES)):
            name = named or f"terraform-{secrets.token_hex(6)}"
            try:
                return self._connection.client().send("POST", "/api-tokens", body={"name": name, **body}).body
            except ApiError as refusal:
                if named is not None or refusal.code != "already_exists" or not left:
                    raise
        raise AssertionError
