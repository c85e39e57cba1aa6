"""A provider that has nothing behind it and uses what the framework offers and the product does not need (yet).

`python -m support.showcase` is its executable. Everything that a thing is, is in its state.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from typing import Any, ClassVar

from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report, attribute, error
from provider_shim.framework.provider import Provider
from provider_shim.framework.resource import Resource
from provider_shim.framework.schema import Attribute, Block, Schema
from provider_shim.framework.types import DYNAMIC, NUMBER, STRING, UNKNOWN, Object, Value
from provider_shim.framework.validate import between
from provider_shim.protocol.server import serve

_PORT = Attribute(type=NUMBER, required=True, validators=(between(1, 65535),), description="Port.")
_PROTOCOL = Attribute(type=STRING, default="tcp", description="Protocol.")


class Thing(Resource):
    type_name = "showcase_thing"
    identity: ClassVar = {"name": "Name of the thing."}
    schema = Schema(
        description="A thing.",
        version=1,
        attributes={
            "id": Attribute(type=STRING, computed=True, keep_state=True, never_null=True, description="Its name."),
            "name": Attribute(type=STRING, required=True, on_change="replace", description="Its name."),
            "secret": Attribute(type=STRING, optional=True, write_only=True, description="Known to nobody."),
            "secret_version": Attribute(type=NUMBER, optional=True, description="Another one: the secret is another."),
            "digest": Attribute(type=STRING, computed=True, description="Of the secret, when it was last set."),
            "extra": Attribute(type=DYNAMIC, optional=True, description="Anything."),
            "old_extra": Attribute(type=STRING, optional=True, deprecated="Use extra.", description="Something."),
        },
        blocks={
            "rule": Block("Rules in their order.", {"port": _PORT, "protocol": _PROTOCOL}, "list"),
            "peer": Block("Peers in no order.", {"port": _PORT}, "set"),
            "limit": Block(
                "Limits by name.", {"value": Attribute(type=NUMBER, required=True, description="It.")}, "map"
            ),
        },
    )

    def validate(self, config: Mapping[str, Value], report: Report) -> None:
        if config.get("secret") is not None and config.get("secret_version") is None:
            report.error("A secret has no version", "Nobody could tell that it changed.", attribute("secret_version"))

    def modify_plan(self, call: Call, prior: Object | None, planned: Object, config: Object) -> Object:
        if prior is not None and planned["secret_version"] == prior["secret_version"]:
            planned["digest"] = prior["digest"]
        return planned

    def create(self, call: Call, planned: Object) -> Object:
        if planned["name"] == "slow":
            call.keep({**planned, "id": "slow"})
            call.cancel.wait(60)
            raise error("Interrupted", "It is half made.")
        call.private["applied"] = 1
        return self._made(call, planned)

    def read(self, call: Call, state: Object) -> Object | None:
        return state

    def update(self, call: Call, prior: Object, planned: Object) -> Object:
        call.private["applied"] += 1
        return self._made(call, planned)

    def delete(self, call: Call, prior: Object) -> None:
        """There is nothing."""

    def parse_id(self, import_id: str) -> dict[str, str]:
        return {"name": import_id}

    def upgrade(self, version: int, raw: dict[str, Any]) -> dict[str, Any]:
        """Version 0 called its name `title`."""
        return {**raw, "name": raw["title"]} if version == 0 else raw

    def move(self, source_type: str, source_provider: str, raw: dict[str, Any]) -> dict[str, Any]:
        if source_type != "terraform_data":
            return super().move(source_type, source_provider, raw)
        name = raw["output"]["value"] if isinstance(raw["output"], dict) else raw["output"]
        return {"id": name, "name": name}

    def _made(self, call: Call, planned: Object) -> Object:
        secret = call.config.get("secret")
        digest = None if secret is None else hashlib.sha256(secret.encode()).hexdigest()[:8]
        return {
            **planned,
            "id": planned["name"],
            "digest": digest if planned["digest"] is UNKNOWN else planned["digest"],
        }


class ShowcaseProvider(Provider):
    schema = Schema(
        description="Shows what the framework can do.",
        attributes={"endpoint": Attribute(type=STRING, optional=True, description="Of nothing.")},
    )
    resources: ClassVar = {Thing.type_name: Thing()}
    data_sources: ClassVar = {}
    functions: ClassVar = {}
    list_resources: ClassVar = {}
    ephemeral_resources: ClassVar = {}
    actions: ClassVar = {}

    def __init__(self) -> None:
        super().__init__()
        self._unknown = False

    def configure(self, config: Object, report: Report) -> None:
        self._unknown = config.get("endpoint") is UNKNOWN

    @property
    def deferred(self) -> bool:
        return self._unknown


if __name__ == "__main__":
    serve(ShowcaseProvider)
    sys.exit(0)
