"""Certificates from the cluster's own authority, for who joins and for who is a member already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from controlplane.machine.outcome import Rejected
from controlplane.model.commands import RotateAuthority
from controlplane.model.credentials import MemberKind, Sealed


class NoAuthorityError(Exception):
    """This cluster has no authority of its own, or this node cannot sign with it; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Applicant:
    """Who wants a certificate, as it says of itself; only the key of `csr` and what the state knows count for more."""

    kind: MemberKind
    name: str
    csr: bytes
    """PEM, signed by the key that it is about."""
    addresses: Sequence[str] = ()
    """At which a node is dialled: names and addresses, without ports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    certificate: str
    """PEM; during a rotation followed by its authority's, as the one before signed it."""
    authority: str
    """The fingerprint of who signed it."""
    authorities: str
    """PEM of every authority to be trusted."""
    serial: str
    expires_at: int
    """Milliseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Presented:
    """The certificate that an applicant has."""

    serial: str
    expires_at: int
    """Milliseconds since the Unix epoch."""


@dataclass(frozen=True, slots=True)
class Lives:
    """How long certificates are valid, in seconds."""

    host_s: int
    node_s: int


class Issuer(Protocol):
    """All raise NoAuthorityError and LogError; IdentityError for a signing request that is none."""

    def fingerprint(self) -> str:
        """Of an authority by which every node is known, as join tokens have it."""
        ...

    def authorities(self) -> str:
        """PEM of every authority to be trusted."""
        ...

    async def join(self, token: str, applicant: Applicant, *, macs: Sequence[str], address: str) -> Issued | Rejected:
        """Redeem a join token; `address` is where the applicant's connection came from.

        What this replica does not know yet is refused: let it catch up first.
        """
        ...

    async def renew(self, applicant: Applicant, presented: Presented) -> Issued | Rejected:
        """Another certificate for who showed `presented`."""
        ...

    @property
    def lives(self) -> Lives:
        """Of what it signs."""
        ...

    def successor(self) -> RotateAuthority:
        """The command by which another authority, made for it, takes the place of the one that signs."""
        ...

    def key_ring(self) -> str:
        """The key-encryption keys, as their file holds them: for a joining node alone."""
        ...

    def sealed(self) -> tuple[str, Sealed]:
        """The authority that signs, with its sealed key: for a joining node alone."""
        ...
