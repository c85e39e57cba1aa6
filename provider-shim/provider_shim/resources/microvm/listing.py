"""`list "flintlock_microvm"`: as of every other kind, and by host."""

from __future__ import annotations

from typing import Any

from provider_shim.framework.call import Call
from provider_shim.framework.schema import Attribute
from provider_shim.framework.types import STRING
from provider_shim.resources.common import NAME
from provider_shim.resources.connection import Connection
from provider_shim.resources.listing import DeclaredList
from provider_shim.resources.microvm.resource import MicroVMResource


class _Declared(MicroVMResource):
    """A configuration is written from what is listed: it has to have the intent, even where the microVM drifted."""

    def observed(self, call: Call, stored: dict[str, Any]) -> dict[str, Any]:
        return stored


class MicroVMList(DeclaredList):
    def __init__(self, connection: Connection) -> None:
        host = Attribute(type=STRING, optional=True, validators=(NAME,), description="Only those on this host.")
        super().__init__(connection, _Declared(connection), {"host": host})
