"""What a resource looks like to its user: attributes, nested attributes, blocks.

An attribute with a `default` is optional and computed: when the configuration says nothing, the plan shows the default.
`on_change` says what changing it does to the real thing; `replace` makes Terraform plan a replacement.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

from provider_shim.framework.codec import Codec
from provider_shim.framework.diagnostics import Diagnostic, Path
from provider_shim.framework.types import ListOf, MapOf, ObjectOf, SetOf, Type, Value

Validator: TypeAlias = Callable[[Path, Value], Iterable[Diagnostic]]
"""Called with known, non-null values only."""

Change: TypeAlias = Literal["live", "restart", "replace"]
Nesting: TypeAlias = Literal["single", "list", "set", "map"]


@dataclass(frozen=True, slots=True)
class Nested:
    """Attributes inside an attribute: one object, or a list, set or map (by key) of them."""

    mode: Nesting
    attributes: Mapping[str, Attribute]

    @property
    def wire_type(self) -> Type:
        inner = ObjectOf({name: each.wire_type for name, each in self.attributes.items()})
        match self.mode:
            case "single":
                return inner
            case "list":
                return ListOf(inner)
            case "set":
                return SetOf(inner)
            case "map":
                return MapOf(inner)


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    type: Type | Nested
    description: str
    required: bool = False
    optional: bool = False
    computed: bool = False
    sensitive: bool = False
    write_only: bool = False
    """Goes from the configuration to the provider (`Call.config`) and is in no plan and no state; Terraform 1.11 on."""
    deprecated: str = ""
    default: Value = None
    on_change: Change | None = None
    keep_state: bool = False
    """A computed value that never changes once known, so that an update does not show it as unknown."""
    never_null: bool = False
    """A computed value that is there once it is known: while it is unknown, Terraform can tell that it is not null."""
    validators: tuple[Validator, ...] = ()

    @property
    def wire_type(self) -> Type:
        return self.type.wire_type if isinstance(self.type, Nested) else self.type


@dataclass(frozen=True, slots=True)
class Block:
    """A nested block, such as `timeouts`: one, or a list, set or map (by label) of them."""

    description: str
    attributes: Mapping[str, Attribute]
    mode: Nesting = "single"

    @property
    def nested(self) -> Nested:
        """What is inside, as of an attribute."""
        return Nested(self.mode, self.attributes)

    @property
    def absent(self) -> Value:
        """What Terraform takes for its not being there: blocks that may repeat are empty then, and not null."""
        return None if self.mode == "single" else {} if self.mode == "map" else []

    @property
    def wire_type(self) -> Type:
        return self.nested.wire_type


@dataclass(frozen=True, kw_only=True)
class Schema:
    description: str
    attributes: Mapping[str, Attribute]
    blocks: Mapping[str, Block] = field(default_factory=dict[str, Block])
    version: int = 0

    @property
    def wire_type(self) -> ObjectOf:
        types: dict[str, Type] = {name: each.wire_type for name, each in self.attributes.items()}
        types.update({name: block.wire_type for name, block in self.blocks.items()})
        return ObjectOf(types)

    @cached_property
    def codec(self) -> Codec:
        """Of what has this schema."""
        return Codec(self.wire_type)
