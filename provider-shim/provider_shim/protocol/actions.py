"""The calls of the protocol about actions; see `framework.action`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

from provider_shim.framework.action import Action, validate
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import ProviderError, error
from provider_shim.framework.provider import Provider
from provider_shim.framework.types import Object
from provider_shim.protocol.convert import PROVIDER_CONFIG_UNKNOWN, read_value, write_diagnostics
from provider_shim.protocol.messages import message

Message: TypeAlias = Any


class ActionCalls:
    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def validate(self, request: Message, response: Message) -> None:
        action = self._action(request.type_name)
        config: Object = read_value(action.schema.codec, request.config) or {}
        response.diagnostics.extend(write_diagnostics(validate(action, config).items))

    def plan(self, request: Message, response: Message) -> None:
        """What is done is decided when it is done: a plan says no more than that it will be."""
        self._action(request.action_type)
        if self._provider.deferred and request.client_capabilities.deferral_allowed:
            response.deferred.reason = PROVIDER_CONFIG_UNKNOWN

    def invoke(self, request: Message, _response: Message) -> Iterator[Message]:
        action = self._action(request.action_type)
        config: Object = read_value(action.schema.codec, request.config) or {}
        call = Call(cancel=self._provider.cancel)
        try:
            for line in action.invoke(call, config):
                yield message("InvokeAction.Event")(progress={"message": line})
        except ProviderError as problem:
            call.report.extend(problem.diagnostics)
        yield message("InvokeAction.Event")(completed={"diagnostics": write_diagnostics(call.report.items)})

    def handlers(self) -> Mapping[str, Any]:
        return {
            "ValidateActionConfig": self.validate,
            "PlanAction": self.plan,
            "InvokeAction": self.invoke,
        }

    def _action(self, name: str) -> Action:
        action = self._provider.actions.get(name)
        if action is None:
            raise error(f"There is no action {name}", "This provider declares none of that name.")
        return action
