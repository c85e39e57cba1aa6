"""What a provider's author writes: resources, data sources and list resources.

Each gets plain values (dicts with every attribute of its schema present) and a `Call`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from provider_shim.framework.call import Call
from provider_shim.framework.diagnostics import Report, error
from provider_shim.framework.schema import Schema
from provider_shim.framework.types import Object, Value


class Resource(ABC):
    type_name: ClassVar[str]
    schema: ClassVar[Schema]
    identity: ClassVar[Mapping[str, str]]
    """Attributes (all strings, all required) that name the thing for ever, with descriptions."""

    def validate(self, config: Mapping[str, Value], report: Report) -> None:  # noqa: B027 - most have nothing to add
        """Checks across attributes; values may be null or UNKNOWN."""

    def modify_plan(self, call: Call, prior: Object | None, planned: Object, config: Object) -> Object:
        """Last word on a planned create (no prior) or update. Must not need the API to answer."""
        return planned

    @abstractmethod
    def create(self, call: Call, planned: Object) -> Object: ...

    @abstractmethod
    def read(self, call: Call, state: Object) -> Object | None:
        """The state as it is now; None only when the API says for certain that the thing is gone."""

    @abstractmethod
    def update(self, call: Call, prior: Object, planned: Object) -> Object: ...

    @abstractmethod
    def delete(self, call: Call, prior: Object) -> None: ...

    @abstractmethod
    def parse_id(self, import_id: str) -> dict[str, str]:
        """The identity that an import id names. Raises ProviderError with the form it must have."""

    def imported(self, identity: Mapping[str, str]) -> Object:
        """A state that holds only the identity, for `read` to fill in."""
        blocks = {name: block.absent for name, block in self.schema.blocks.items()}
        return {**dict.fromkeys(self.schema.attributes), **blocks, **identity}

    def upgrade(self, version: int, raw: dict[str, Any]) -> dict[str, Any]:
        """State JSON of an older schema version in today's shape; missing attributes are filled in afterwards."""
        return raw

    def move(self, source_type: str, source_provider: str, raw: dict[str, Any]) -> dict[str, Any]:
        """State JSON of another resource type in this one's shape."""
        raise error(
            f"{self.type_name} cannot take over {source_type}",
            f"State of {source_type} ({source_provider}) means nothing to {self.type_name}. Import the object.",
        )

    def identity_of(self, state: Mapping[str, Value]) -> dict[str, str] | None:
        values = {name: state.get(name) for name in self.identity}
        if any(not isinstance(value, str) for value in values.values()):
            return None
        return {name: str(value) for name, value in values.items()}


class DataSource(ABC):
    type_name: ClassVar[str]
    schema: ClassVar[Schema]

    @abstractmethod
    def read(self, call: Call, config: Object) -> Object: ...


@dataclass(frozen=True, slots=True)
class Listed:
    """One object that a query found, whether Terraform manages it or not."""

    identity: dict[str, str]
    shown: str
    """What a user calls it."""
    state: Object
    """As an import would have it."""


class ListResource(ABC):
    """Finds objects of a resource type for `terraform query` (Terraform 1.14 on)."""

    type_name: str
    """Of the resource that it finds."""
    schema: Schema
    """What a `list` block may say."""

    @abstractmethod
    def find(self, call: Call, config: Object) -> Iterator[Listed]:
        """In an order that stays the same."""
