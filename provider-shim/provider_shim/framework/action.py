"""Actions: what is done once, when a run says so, and leaves nothing in state (Terraform 1.14 on).

Terraform invokes one by `terraform apply -invoke=action.TYPE.NAME`, or before or after what a resource's
`action_trigger` names. `invoke` tells how far it is while it works; each line reaches the user at once. It ends early
when `Call.cancel` is set: an action that did not do its work raises, so that Terraform does not go on as if it had.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import ClassVar

from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report
from provider_shim.framework.schema import Schema
from provider_shim.framework.types import Object, Value
from provider_shim.framework.validate import check


class Action(ABC):
    type_name: ClassVar[str]
    schema: ClassVar[Schema]
    """What a `config` block may say: nothing in it is computed."""

    @abstractmethod
    def invoke(self, call: Call, config: Object) -> Iterator[str]:
        """Does it, and yields a line whenever something is news. Values are known. Raises ProviderError."""


def validate(action: Action, config: Mapping[str, Value]) -> Report:
    report = Report()
    report.extend(check(action.schema, config))
    return report
