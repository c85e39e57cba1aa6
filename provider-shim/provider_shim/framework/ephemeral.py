"""Ephemeral resources: what exists for one run of Terraform and is in neither plan nor state, such as a credential.

Terraform opens one in every run that needs it, plans included, and closes it at the end of the run. What `open` puts
into `Call.private` is all that `close` gets. They are opened to last for a whole run, so there is nothing to renew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report
from provider_shim.framework.schema import Schema
from provider_shim.framework.types import Object, Value
from provider_shim.framework.validate import check


class EphemeralResource(ABC):
    type_name: ClassVar[str]
    schema: ClassVar[Schema]

    @abstractmethod
    def open(self, call: Call, config: Object) -> Object:
        """Every attribute of the schema, known. Raises ProviderError."""

    @abstractmethod
    def close(self, call: Call) -> None:
        """The end of what was opened. Raises ProviderError."""


def validate(resource: EphemeralResource, config: Mapping[str, Value]) -> Report:
    report = Report()
    report.extend(check(resource.schema, config))
    return report
