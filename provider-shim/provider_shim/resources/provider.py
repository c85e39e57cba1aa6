"""The provider itself: its arguments, and the list of what it offers."""

from __future__ import annotations

from provider_shim.framework.action import Action
from provider_shim.framework.diagnostics import Report
from provider_shim.framework.ephemeral import EphemeralResource
from provider_shim.framework.function import Function
from provider_shim.framework.provider import Provider
from provider_shim.framework.resource import DataSource, ListResource, Resource
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import STRING, ListOf, Object
from provider_shim.resources.actions.garbage import GCRunAction
from provider_shim.resources.actions.hosts import HostDrainAction, HostUncordonAction
from provider_shim.resources.actions.microvms import MicroVMRestartAction, MicroVMStartAction, MicroVMStopAction
from provider_shim.resources.api_token import ApiTokenResource
from provider_shim.resources.common import NAME
from provider_shim.resources.connection import DEFAULT_NAMESPACE, ENVIRONMENT, Connection
from provider_shim.resources.drift_source import DriftSource
from provider_shim.resources.events_source import EventsSource
from provider_shim.resources.failover_policy import FailoverPolicyResource
from provider_shim.resources.functions import FUNCTIONS
from provider_shim.resources.gc_policy import GCPolicyResource
from provider_shim.resources.host import HostResource
from provider_shim.resources.listing import DeclaredList
from provider_shim.resources.microvm.listing import MicroVMList
from provider_shim.resources.microvm.resource import MicroVMResource
from provider_shim.resources.microvm_group import MicroVMGroupResource
from provider_shim.resources.namespace import NamespaceResource
from provider_shim.resources.placement_policy import PlacementPolicyResource
from provider_shim.resources.placement_source import PlacementSource
from provider_shim.resources.role import RoleResource
from provider_shim.resources.role_binding import RoleBindingResource
from provider_shim.resources.sources import ClusterSource, HostsSource, MicroVMsSource
from provider_shim.resources.upstream_source import UpstreamVMsSource


def _argument(name: str, description: str, *, sensitive: bool = False) -> Attribute:
    return Attribute(
        type=STRING,
        optional=True,
        sensitive=sensitive,
        validators=(NAME,) if name == "namespace" else (),
        description=f"{description} Environment: `{ENVIRONMENT[name]}`.",
    )


class FlintlockProvider(Provider):
    schema = Schema(
        description="Declares microVMs, hosts, namespaces and policies to a Flintlock control plane.",
        attributes={
            "endpoints": Attribute(
                type=ListOf(STRING),
                optional=True,
                description="`https://` addresses of the control plane's nodes, tried in turn; any of them answers. "
                f"Environment: `{ENVIRONMENT['endpoints']}`, separated by commas.",
            ),
            "token": _argument("token", "Token to authenticate with.", sensitive=True),
            "token_file": _argument("token_file", "File that holds the token; read again when it changes."),
            "oidc_token": _argument(
                "oidc_token",
                "ID token of an OpenID Connect issuer that the control plane trusts, such as the one of a CI system.",
                sensitive=True,
            ),
            "oidc_token_file": _argument(
                "oidc_token_file", "File that holds the ID token; read again when it changes."
            ),
            "ca_file": _argument("ca_file", "PEM file with the authority that signed the nodes' certificates."),
            "client_certificate": _argument("client_certificate", "PEM file with a client certificate."),
            "client_key": _argument("client_key", "PEM file with the client certificate's key."),
            "namespace": _argument(
                "namespace", f"Namespace of microVMs that name none; `{DEFAULT_NAMESPACE}` if unset."
            ),
            "plan_checks": _argument(
                "plan_checks",
                "Whether a plan asks the control plane what it would say to it. What can never be applied is an error "
                "of the plan; what would be refused as things are (a quota, no room) is a warning with `warn`, the "
                "default, an error with `strict`; `off` asks nothing.",
            ),
        },
    )

    def __init__(self) -> None:
        super().__init__()
        self.connection = Connection(self.cancel)
        resources = (
            NamespaceResource,
            HostResource,
            PlacementPolicyResource,
            FailoverPolicyResource,
            GCPolicyResource,
            MicroVMGroupResource,
            RoleResource,
            RoleBindingResource,
            MicroVMResource,
        )
        self._resources: dict[str, Resource] = {each.type_name: each(self.connection) for each in resources}
        sources = (
            ClusterSource,
            DriftSource,
            EventsSource,
            HostsSource,
            MicroVMsSource,
            PlacementSource,
            UpstreamVMsSource,
        )
        self._data_sources: dict[str, DataSource] = {each.type_name: each(self.connection) for each in sources}
        self._functions: dict[str, Function] = {each.name: each() for each in FUNCTIONS}
        lists = (
            *(
                DeclaredList(self.connection, each(self.connection))
                for each in resources
                if each is not MicroVMResource
            ),
            MicroVMList(self.connection),
        )
        self._list_resources: dict[str, ListResource] = {each.type_name: each for each in lists}
        self._ephemeral_resources: dict[str, EphemeralResource] = {
            ApiTokenResource.type_name: ApiTokenResource(self.connection)
        }
        actions = (
            GCRunAction,
            HostDrainAction,
            HostUncordonAction,
            MicroVMRestartAction,
            MicroVMStartAction,
            MicroVMStopAction,
        )
        self._actions: dict[str, Action] = {each.type_name: each(self.connection) for each in actions}

    @property
    def resources(self) -> dict[str, Resource]:
        return self._resources

    @property
    def data_sources(self) -> dict[str, DataSource]:
        return self._data_sources

    @property
    def functions(self) -> dict[str, Function]:
        return self._functions

    @property
    def list_resources(self) -> dict[str, ListResource]:
        return self._list_resources

    @property
    def ephemeral_resources(self) -> dict[str, EphemeralResource]:
        return self._ephemeral_resources

    @property
    def actions(self) -> dict[str, Action]:
        return self._actions

    @property
    def deferred(self) -> bool:
        return self.connection.deferred

    def stop(self) -> None:
        super().stop()
        self.connection.interrupt()

    def configure(self, config: Object, report: Report) -> None:
        self.connection.configure(config, report)
