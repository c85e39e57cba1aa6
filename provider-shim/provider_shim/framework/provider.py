"""The provider: what it is configured with, and everything that it has, by type name."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from provider_shim.framework.action import Action
from provider_shim.framework.diagnostics import Report
from provider_shim.framework.ephemeral import EphemeralResource
from provider_shim.framework.function import Function
from provider_shim.framework.resource import DataSource, ListResource, Resource
from provider_shim.framework.schema import Schema
from provider_shim.framework.types import Object


class Provider(ABC):
    schema: ClassVar[Schema]

    def __init__(self) -> None:
        self.cancel = threading.Event()

    @property
    @abstractmethod
    def resources(self) -> Mapping[str, Resource]: ...

    @property
    @abstractmethod
    def data_sources(self) -> Mapping[str, DataSource]: ...

    @property
    @abstractmethod
    def functions(self) -> Mapping[str, Function]: ...

    @property
    @abstractmethod
    def list_resources(self) -> Mapping[str, ListResource]: ...

    @property
    @abstractmethod
    def ephemeral_resources(self) -> Mapping[str, EphemeralResource]: ...

    @property
    @abstractmethod
    def actions(self) -> Mapping[str, Action]: ...

    @abstractmethod
    def configure(self, config: Object, report: Report) -> None: ...

    @property
    @abstractmethod
    def deferred(self) -> bool:
        """Whether the configuration depends on something that is not known yet."""

    def stop(self) -> None:
        self.cancel.set()
