"""`list` blocks for `terraform query`: find what is declared, by whatever means, so that Terraform can adopt it.

What nobody declared (an agent that is pending, a microVM of drift class `unmanaged`) has no intent that a configuration
could be written from, and what another object makes (a member of a group) is that object's: neither is found here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from provider_shim.client import segment
from provider_shim.framework.call import Call
from provider_shim.framework.resource import Listed, ListResource
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import STRING, Object
from provider_shim.resources.common import NAME
from provider_shim.resources.connection import Connection
from provider_shim.resources.declared import DeclaredResource
from provider_shim.resources.problems import told_to_user
from provider_shim.resources.sources import Filters, label_filter, label_query

_NOTHING_MORE: Mapping[str, Attribute] = {}


class DeclaredList(ListResource):
    """Finds the objects of one resource type."""

    def __init__(
        self, connection: Connection, resource: DeclaredResource, filters: Mapping[str, Attribute] = _NOTHING_MORE
    ) -> None:
        """`filters`: further arguments, which the API's list knows by the same names."""
        self._connection = connection
        self._resource = resource
        self._filters = filters
        namespace = Attribute(
            type=STRING, optional=True, validators=(NAME,), description="Only this namespace; unset means all."
        )
        self.type_name = resource.type_name
        self.schema = Schema(
            description=f"Every {resource.label} that is declared.",
            attributes={
                **({"namespace": namespace} if "namespace" in resource.identity else {}),
                "labels": label_filter("those"),
                **filters,
            },
        )

    def find(self, call: Call, config: Object) -> Iterator[Listed]:
        namespace = config.get("namespace")
        inside = "" if namespace is None else f"/namespaces/{segment(namespace)}"
        query = label_query(config)
        query.update({name: config[name] for name in self._filters if config.get(name) is not None})
        with told_to_user(f"list {self.type_name}", Filters()):
            for stored in self._connection.client().pages(f"{inside}/{self._resource.collection}", query):
                if not stored.get("deletion_requested_at") and self._resource.is_adoptable(stored):
                    yield self._listed(call, stored)

    def _listed(self, call: Call, stored: dict[str, Any]) -> Listed:
        identity = {name: stored[name] for name in self._resource.identity}
        state = self._resource.state_of(call, self._resource.imported(identity), stored)
        return Listed(identity=identity, shown=self._resource.show(identity), state=state)
