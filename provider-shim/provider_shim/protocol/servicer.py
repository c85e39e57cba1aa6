"""The calls of `tfplugin6.Provider` on a framework provider.

Each method takes a request message and fills a response; `handlers()` pairs them with the protocol's names. What the
provider does not declare is refused by name when asked for. Unexpected exceptions are turned into diagnostics by
`guard`, never into gRPC failures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, TypeAlias

from provider_shim.framework import engine
from provider_shim.framework.call import Call
from provider_shim.framework.codec import Codec
from provider_shim.framework.diagnostics import Diagnostic, ProviderError, Report, error
from provider_shim.framework.function import FunctionError
from provider_shim.framework.plan import refined
from provider_shim.framework.provider import Provider
from provider_shim.framework.resource import DataSource, ListResource, Resource
from provider_shim.framework.types import Object, is_wholly_known, without_unknowns
from provider_shim.framework.validate import check, check_write_only
from provider_shim.protocol.actions import ActionCalls
from provider_shim.protocol.convert import (
    PROVIDER_CONFIG_UNKNOWN,
    read_identity,
    read_private,
    read_value,
    write_diagnostics,
    write_function,
    write_identity,
    write_identity_schema,
    write_path,
    write_private,
    write_schema,
    write_value,
)
from provider_shim.protocol.ephemeral import EphemeralCalls
from provider_shim.protocol.messages import message

Message: TypeAlias = Any
Handler: TypeAlias = Callable[[Message, Message], "Iterator[Message] | None"]


class Servicer:
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def handlers(self) -> Mapping[str, Handler]:
        """By the protocol's names; each fills the response it is given, or yields responses."""
        return {
            "GetMetadata": self._get_metadata,
            "GetProviderSchema": self._get_provider_schema,
            "GetResourceIdentitySchemas": self._get_identity_schemas,
            "ValidateProviderConfig": self._validate_provider,
            "ConfigureProvider": self._configure,
            "StopProvider": self._stop,
            "ValidateResourceConfig": self._validate_resource,
            "UpgradeResourceState": self._upgrade_state,
            "UpgradeResourceIdentity": self._upgrade_identity,
            "ReadResource": self._read,
            "PlanResourceChange": self._plan,
            "ApplyResourceChange": self._apply,
            "ImportResourceState": self._import,
            "MoveResourceState": self._move,
            "GenerateResourceConfig": self._generate_config,
            "ValidateDataResourceConfig": self._validate_data_source,
            "ReadDataSource": self._read_data_source,
            "GetFunctions": self._get_functions,
            "CallFunction": self._call_function,
            **EphemeralCalls(self._provider).handlers(),
            "ValidateListResourceConfig": self._validate_list_resource,
            "ListResource": self._list_resource,
            **ActionCalls(self._provider).handlers(),
        }

    # -- what there is ------------------------------------------------------------------------------------------------

    def _get_metadata(self, _request: Message, response: Message) -> None:
        _write_capabilities(response)
        for name in sorted(self._provider.resources):
            response.resources.add(type_name=name)
        for name in sorted(self._provider.data_sources):
            response.data_sources.add(type_name=name)
        for name in sorted(self._provider.functions):
            response.functions.add(name=name)
        for name in sorted(self._provider.list_resources):
            response.list_resources.add(type_name=name)
        for name in sorted(self._provider.ephemeral_resources):
            response.ephemeral_resources.add(type_name=name)
        for name in sorted(self._provider.actions):
            response.actions.add(type_name=name)

    def _get_provider_schema(self, _request: Message, response: Message) -> None:
        _write_capabilities(response)
        response.provider.CopyFrom(write_schema(self._provider.schema))
        for name, resource in self._provider.resources.items():
            response.resource_schemas[name].CopyFrom(write_schema(resource.schema))
        for name, source in self._provider.data_sources.items():
            response.data_source_schemas[name].CopyFrom(write_schema(source.schema))
        for name, ephemeral in self._provider.ephemeral_resources.items():
            response.ephemeral_resource_schemas[name].CopyFrom(write_schema(ephemeral.schema))
        for name, listing in self._provider.list_resources.items():
            response.list_resource_schemas[name].CopyFrom(write_schema(listing.schema))
        for name, action in self._provider.actions.items():
            response.action_schemas[name].schema.CopyFrom(write_schema(action.schema))
        self._get_functions(_request, response)

    def _get_identity_schemas(self, _request: Message, response: Message) -> None:
        for name, resource in self._provider.resources.items():
            response.identity_schemas[name].CopyFrom(write_identity_schema(resource.identity))

    def _resource(self, name: str) -> Resource:
        resource = self._provider.resources.get(name)
        if resource is None:
            raise error(f"There is no resource type {name}", "This provider does not declare it; check its version.")
        return resource

    def _data_source(self, name: str) -> DataSource:
        source = self._provider.data_sources.get(name)
        if source is None:
            raise error(f"There is no data source {name}", "This provider does not declare it; check its version.")
        return source

    def _listing(self, name: str) -> ListResource:
        listing = self._provider.list_resources.get(name)
        if listing is None:
            raise ProviderError([_refusal("list resource", name)])
        return listing

    def _call(self, private: bytes = b"") -> Call:
        return Call(cancel=self._provider.cancel, private=read_private(private))

    # -- the provider -------------------------------------------------------------------------------------------------

    def _validate_provider(self, request: Message, response: Message) -> None:
        config: Object = read_value(self._provider.schema.codec, request.config) or {}
        response.diagnostics.extend(write_diagnostics(check(self._provider.schema, config)))

    def _configure(self, request: Message, response: Message) -> None:
        config: Object = read_value(self._provider.schema.codec, request.config) or {}
        report = Report()
        self._provider.configure(config, report)
        response.diagnostics.extend(write_diagnostics(report.items))

    def _stop(self, _request: Message, _response: Message) -> None:
        self._provider.stop()

    # -- resources ----------------------------------------------------------------------------------------------------

    def _validate_resource(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        report = Report()
        config: Object | None = read_value(resource.schema.codec, request.config)
        if config is not None:
            engine.validate(resource, config, report)
            if not request.client_capabilities.write_only_attributes_allowed:
                report.extend(check_write_only(resource.schema, config))
        response.diagnostics.extend(write_diagnostics(report.items))

    def _upgrade_state(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        state = engine.upgrade_state(resource, request.version, request.raw_state.json)
        response.upgraded_state.CopyFrom(write_value(resource.schema.codec, state))

    def _upgrade_identity(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        identity = engine.upgrade_identity(resource, request.raw_identity.json)
        response.upgraded_identity.CopyFrom(write_identity(identity))

    def _read(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        call = self._call(request.private)
        response.new_state.CopyFrom(request.current_state)
        state: Object = read_value(resource.schema.codec, request.current_state)
        new_state: Object | None
        if self._provider.deferred and request.client_capabilities.deferral_allowed:
            response.deferred.reason = PROVIDER_CONFIG_UNKNOWN
            new_state = state
        else:
            new_state = engine.read(resource, call, state)
        response.new_state.CopyFrom(write_value(resource.schema.codec, new_state))
        response.private = write_private(call.private)
        response.diagnostics.extend(write_diagnostics(call.report.items))
        if new_state is not None:
            _write_identity(response.new_identity, resource.identity_of(new_state))

    def _plan(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        codec = resource.schema.codec
        call = self._call(request.prior_private)
        prior: Object | None = read_value(codec, request.prior_state)
        # A destroy is a null proposal; the configuration of a destroy may still be there.
        config: Object | None = (
            read_value(codec, request.config) if read_value(codec, request.proposed_new_state) is not None else None
        )
        call.config = config or {}
        plan = engine.plan(resource, call, prior, config)
        planned = None if plan.planned is None else refined(resource.schema, plan.planned)
        response.planned_state.CopyFrom(write_value(codec, planned))
        response.requires_replace.extend(write_path(path) for path in plan.replace)
        response.planned_private = write_private(call.private)
        response.diagnostics.extend(write_diagnostics(call.report.items))
        if prior is not None and request.HasField("prior_identity"):
            response.planned_identity.CopyFrom(request.prior_identity)
        elif plan.planned is not None and is_wholly_known([plan.planned.get(name) for name in resource.identity]):
            _write_identity(response.planned_identity, resource.identity_of(plan.planned))

    def _apply(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        codec = resource.schema.codec
        call = self._call(request.planned_private)
        # What Terraform saves if a bug interrupts us: it must not forget a thing that exists.
        response.new_state.CopyFrom(request.prior_state)
        prior: Object | None = read_value(codec, request.prior_state)
        planned: Object | None = read_value(codec, request.planned_state)
        call.config = read_value(codec, request.config) or {}
        try:
            new_state = engine.apply(resource, call, prior, planned)
        except Exception:
            response.new_state.CopyFrom(write_value(codec, without_unknowns(call.kept)))
            raise
        response.new_state.CopyFrom(write_value(codec, new_state))
        response.private = write_private(call.private)
        response.diagnostics.extend(write_diagnostics(call.report.items))
        if new_state is not None:
            _write_identity(response.new_identity, resource.identity_of(new_state))

    def _import(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        call = self._call()
        identity = read_identity(resource.identity, request.identity) if request.HasField("identity") else None
        state = engine.import_state(resource, call, request.id, identity)
        response.diagnostics.extend(write_diagnostics(call.report.items))
        if state is None:
            return
        imported = response.imported_resources.add(type_name=resource.type_name)
        imported.state.CopyFrom(write_value(resource.schema.codec, state))
        _write_identity(imported.identity, resource.identity_of(state))

    def _move(self, request: Message, response: Message) -> None:
        resource = self._resource(request.target_type_name)
        state = engine.move_state(
            resource, request.source_type_name, request.source_provider_address, request.source_state.json
        )
        response.target_state.CopyFrom(write_value(resource.schema.codec, state))
        response.target_private = request.source_private
        _write_identity(response.target_identity, resource.identity_of(state))

    def _generate_config(self, request: Message, response: Message) -> None:
        resource = self._resource(request.type_name)
        state: Object = read_value(resource.schema.codec, request.state) or {}
        config = engine.config_from_state(resource.schema, state)
        response.config.CopyFrom(write_value(resource.schema.codec, config))

    # -- data sources -------------------------------------------------------------------------------------------------

    def _validate_data_source(self, request: Message, response: Message) -> None:
        source = self._data_source(request.type_name)
        config: Object = read_value(source.schema.codec, request.config) or {}
        response.diagnostics.extend(write_diagnostics(check(source.schema, config)))

    def _read_data_source(self, request: Message, response: Message) -> None:
        source = self._data_source(request.type_name)
        codec = source.schema.codec
        config: Object = read_value(codec, request.config)
        if self._provider.deferred and request.client_capabilities.deferral_allowed:
            response.deferred.reason = PROVIDER_CONFIG_UNKNOWN
            response.state.CopyFrom(request.config)
            return
        call = self._call()
        try:
            response.state.CopyFrom(write_value(codec, source.read(call, config)))
        except ProviderError as problem:
            call.report.extend(problem.diagnostics)
        response.diagnostics.extend(write_diagnostics(call.report.items))

    # -- queries and functions ----------------------------------------------------------------------------------------

    def _validate_list_resource(self, request: Message, response: Message) -> None:
        schema = self._listing(request.type_name).schema
        config: Object = read_value(schema.codec, request.config) or {}
        response.diagnostics.extend(write_diagnostics(check(schema, config)))

    def _list_resource(self, request: Message, _response: Message) -> Iterator[Message]:
        listing = self._listing(request.type_name)
        resource = self._resource(request.type_name)
        call = self._call()
        config: Object = read_value(listing.schema.codec, request.config) or {}
        for found in islice(listing.find(call, config), request.limit or None):
            event = message("ListResource.Event")(display_name=found.shown, identity=write_identity(found.identity))
            if request.include_resource_object:
                event.resource_object.CopyFrom(write_value(resource.schema.codec, found.state))
            yield event

    def _get_functions(self, _request: Message, response: Message) -> None:
        for name, function in self._provider.functions.items():
            response.functions[name].CopyFrom(write_function(function))

    def _call_function(self, request: Message, response: Message) -> None:
        function = self._provider.functions.get(request.name)
        if function is None:
            response.error.text = _refusal("function", request.name).summary
            return
        given = [(function.parameter(index), value) for index, value in enumerate(request.arguments)]
        try:
            answer = function.call([read_value(Codec(each.type), value) for each, value in given if each is not None])
        except FunctionError as refusal:
            response.error.text = refusal.text
            if refusal.argument is not None:
                response.error.function_argument = refusal.argument
            return
        response.result.CopyFrom(write_value(Codec(function.returns), answer))


def _write_capabilities(response: Message) -> None:
    capabilities = response.server_capabilities
    capabilities.get_provider_schema_optional = True
    capabilities.move_resource_state = True


def _write_identity(target: Message, identity: Mapping[str, str] | None) -> None:
    if identity is not None:
        target.CopyFrom(write_identity(identity))


def _refusal(what: str, name: str) -> Diagnostic:
    return Diagnostic("error", f"There is no {what} {name}", f"This provider declares no {what} of that name.")
