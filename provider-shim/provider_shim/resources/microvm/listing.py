"""`list "flintlock_microvm"`: finds the microVMs that are declared, by whatever means, so that Terraform can adopt
them.

What nobody declared (drift class `unmanaged`) has no identity that could be imported, and is not found here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from provider_shim.client import segment
from provider_shim.framework.call import Call
from provider_shim.framework.resource import Listed, ListResource
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import STRING, Object
from provider_shim.resources.common import NAME
from provider_shim.resources.connection import Connection
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.problems import told_to_user
from provider_shim.resources.sources import Filters, label_filter, label_query


class _Declared(MicroVMResource):
    """A configuration is written from what is listed: it has to have the intent, even where the microVM drifted."""

    def observed(self, call: Call, stored: dict[str, Any]) -> dict[str, Any]:
        return stored


class MicroVMList(ListResource):
    type_name = MicroVMResource.type_name
    schema = Schema(
        description="Declared microVMs.",
        attributes={
            "namespace": Attribute(
                type=STRING, optional=True, validators=(NAME,), description="Only this namespace; unset means all."
            ),
            "labels": label_filter("microVMs"),
            "host": Attribute(type=STRING, optional=True, validators=(NAME,), description="Only those on this host."),
        },
    )

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._resource = _Declared(connection)

    def find(self, call: Call, config: Object) -> Iterator[Listed]:
        namespace = config.get("namespace")
        query = label_query(config)
        if config.get("host") is not None:
            query["host"] = config["host"]
        path = "/microvms" if namespace is None else f"/namespaces/{segment(namespace)}/microvms"
        with told_to_user(f"list {self.type_name}", Filters()):
            for stored in self._connection.client().pages(path, query):
                if not stored.get("deletion_requested_at"):
                    yield self._listed(call, stored)

    def _listed(self, call: Call, stored: dict[str, Any]) -> Listed:
        identity = {name: stored[name] for name in self._resource.identity}
        state = self._resource.state_of(call, self._resource.imported(identity), stored)
        return Listed(identity=identity, shown=self._resource.show(identity), state=state)
