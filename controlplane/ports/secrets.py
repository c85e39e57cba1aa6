"""What users declare as secret, between the front and whoever may see it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from controlplane.machine.outcome import Outcome
from controlplane.model.resources import MicroVM
from controlplane.model.secrets import SealedValue


class VaultError(Exception):
    """A secret cannot be sealed or opened here; the message names it, and never says what it is."""


@dataclass(frozen=True, slots=True)
class Sealing:
    """A value as it goes into the log."""

    digest: str
    sealed: SealedValue


class Vault(Protocol):
    async def seal(self, namespace: str, name: str, values: Mapping[str, str]) -> Mapping[str, Sealing]:
        """Secrets of the microVM of this name. Makes the cluster's first data key if there is none. Raises VaultError,
        LogError.
        """
        ...

    def rehearse(self, namespace: str, name: str, values: Mapping[str, str]) -> Mapping[str, Sealing]:
        """As `seal`, and changes nothing: what would be the cluster's first secrets is sealed with a key that nobody
        keeps. Raises VaultError.
        """
        ...

    def open(self, vm: MicroVM) -> Mapping[str, str]:
        """What `vm.sealed` stands for. Raises VaultError."""
        ...

    async def rotate(self, actor: str) -> Outcome:
        """Another data key; what earlier ones encrypt is sealed anew by the leader. Raises VaultError, LogError."""
        ...
