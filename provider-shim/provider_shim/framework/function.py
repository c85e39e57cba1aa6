"""A function of the provider: pure, of known values, and callable without a configured provider.

Terraform calls it at any time, in a plan and in an apply, and expects the same answer for the same arguments. It makes
sure that no argument is null or unknown before it calls. A refusal names the argument that it is about, and Terraform
shows that one in the configuration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from provider_shim.framework.types import Type, Value


class FunctionError(Exception):
    """What the caller did wrong; `argument` is the index of the argument, counted from 0."""

    def __init__(self, text: str, argument: int | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.argument = argument


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    type: Type
    description: str


class Function(ABC):
    name: ClassVar[str]
    summary: ClassVar[str]
    """One line."""
    description: ClassVar[str]
    parameters: ClassVar[Sequence[Parameter]]
    variadic: ClassVar[Parameter | None] = None
    """Any number of further arguments."""
    returns: ClassVar[Type]

    @abstractmethod
    def call(self, arguments: Sequence[Value]) -> Value:
        """Raises FunctionError."""

    def parameter(self, index: int) -> Parameter | None:
        """The parameter that the argument at `index` is for."""
        return self.parameters[index] if index < len(self.parameters) else self.variadic
