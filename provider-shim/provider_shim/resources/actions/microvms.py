"""Verbs on a microVM. `restart` asks its host to act; `stop` and `start` change what is declared.

The control plane answers with the operation that it began, and this waits until that has succeeded. Several runs may
ask at once: an operation that another one took the place of is no success.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any, ClassVar, Final

from provider_shim.client import CancelledError, segment
from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import attribute, error
from provider_shim.framework.schema import Attribute, Schema
from provider_shim.framework.types import STRING, Object
from provider_shim.resources.actions.common import (
    ApiAction,
    Locator,
    deadline,
    named,
    timeout_attribute,
    timeout_text,
)
from provider_shim.resources.common import NAME
from provider_shim.resources.problems import told_to_user
from provider_shim.resources.turns import turns

_WHERE: Final = Locator({"name": "name", "namespace": "namespace"})


def _schema(description: str, what: str) -> Schema:
    return Schema(
        description=description,
        attributes={
            "name": named("Name of the microVM."),
            "namespace": Attribute(
                type=STRING,
                optional=True,
                validators=(NAME,),
                description="Namespace it lives in; the provider's `namespace` if unset.",
            ),
            "timeout": timeout_attribute(what),
        },
    )


class _MicroVMAction(ApiAction):
    verb: ClassVar[str]
    done: ClassVar[str]
    """How it is afterwards."""

    def invoke(self, call: Call, config: Object) -> Iterator[str]:
        namespace: str = config.get("namespace") or self._connection.namespace
        shown = f"{namespace}/{config['name']}"
        with told_to_user(f"{self.verb} microVM {shown}", _WHERE):
            operation = self._begin(namespace, config["name"])
            if operation is not None:
                yield from self._wait(call, shown, operation, config)
        yield f"microVM {shown}: {self.done}"

    def _begin(self, namespace: str, name: str) -> dict[str, Any] | None:
        """The operation, or None where nothing was to be done."""
        path = f"/namespaces/{segment(namespace)}/microvms/{segment(name)}/actions/{self.verb}"
        headers = {"Idempotency-Key": f"tf-action-{uuid.uuid4()}"}
        return self._connection.client().send("POST", path, headers=headers).body["operation"]

    def _wait(self, call: Call, shown: str, operation: dict[str, Any], config: Object) -> Iterator[str]:
        """Until the operation has succeeded."""
        told = ""
        try:
            for _ in turns(deadline(config), call.cancel):
                operation = self._connection.client().get(f"/operations/{segment(operation['id'])}").body
                message: str = operation["message"] or "under way"
                if operation["phase"] == "succeeded":
                    return
                if operation["phase"] == "cancelled":
                    raise error(
                        f"Something newer took the place of the {self.verb} of microVM {shown}",
                        f"{message}.",
                        attribute("name"),
                    )
                if message != told:
                    told = message
                    yield f"microVM {shown}: {message}"
        except CancelledError as problem:
            raise error(
                f"Interrupted while waiting for the {self.verb} of microVM {shown}", "The control plane goes on."
            ) from problem
        raise error(
            f"microVM {shown} is not {self.done} after {timeout_text(config)}",
            f"{told}. The control plane keeps trying.",
            attribute("name"),
        )


class MicroVMRestartAction(_MicroVMAction):
    type_name = "flintlock_microvm_restart"
    verb = "restart"
    done = "restarted"
    schema = _schema(
        "Ends the guest of a microVM and starts it again with its volumes, and waits until its process runs.",
        "its process runs again",
    )


class MicroVMStopAction(_MicroVMAction):
    type_name = "flintlock_microvm_stop"
    verb = "stop"
    done = "stopped"
    schema = _schema(
        "Declares that a microVM is stopped, and waits until it is. A `flintlock_microvm` that declares another "
        "`power_state` shows that as a change in the next plan.",
        "it is stopped",
    )


class MicroVMStartAction(_MicroVMAction):
    type_name = "flintlock_microvm_start"
    verb = "start"
    done = "running"
    schema = _schema("Declares that a microVM runs, and waits until its process does.", "its process runs")
