"""Settings of one consensus node, validated once and then frozen.

Every refusal names the field. Times are seconds, sizes are bytes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from controlplane.identity.files import TlsFiles

NODE_ID = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """One node of the log. `peers` maps the other nodes to their `host:port`; none means a single-node cluster."""

    node: str
    cluster_id: str
    data_dir: Path
    listen: str = ""
    """`host:port` for the peers; a node without it stays alone."""
    advertise: str = ""
    """Where the others dial this node, when that is not `listen`."""
    peers: Mapping[str, str] = field(default_factory=dict[str, str])
    """The other founders, or whom a joining node turns to. Once there is a log, its configuration says who belongs."""
    join: bool = False
    """Begin as nobody: wait until the existing members add this node, instead of founding a cluster with `peers`."""
    tls: TlsFiles | None = None
    """The certificate names its node, `spiffe://<cluster id>/node/<id>`, and serves both as client and server."""
    plaintext_peers_for_tests: bool = False
    """Peers without TLS, for tests inside one process. Refused unless every address is loopback."""
    fsync: Literal["always", "never"] = "always"
    election_min_s: float = 0.5
    election_max_s: float = 1.0
    heartbeat_s: float = 0.1
    max_entry_bytes: int = 4 * MIB
    max_pending_bytes: int = 64 * MIB
    """Proposals accepted by this node and not yet resolved; beyond it `append` refuses."""
    snapshot_entries: int = 20_000
    """A snapshot is taken after this many entries, `snapshot_bytes` of them, or `snapshot_age_s`, whichever comes
    first; never without a new entry.
    """
    snapshot_bytes: int = 64 * MIB
    snapshot_age_s: float = 3600.0
    retain_entries: int = 5_000
    """Entries kept below a snapshot for slow followers, at most `retain_bytes` of them."""
    retain_bytes: int = 16 * MIB
    segment_bytes: int = 16 * MIB
    """Size at which the journal begins another file. Compaction removes whole files only."""
    dead_server_cleanup_s: float = 0.0
    """The leader removes a member that did not answer for so long, when three voters with a reachable majority remain;
    0: never.
    """

    def __post_init__(self) -> None:
        for name in (self.node, *self.peers):
            if not NODE_ID.fullmatch(name):
                raise ValueError(f"node: {name!r} is not a node id (1-63 of a-z 0-9 . _ -)")
        if not self.cluster_id or len(self.cluster_id) > 128:
            raise ValueError("cluster_id: 1 to 128 characters are needed")
        self._check_addresses()
        if self.fsync not in ("always", "never"):
            raise ValueError(f"fsync: {self.fsync!r} is neither 'always' nor 'never'")
        if not 0 < self.heartbeat_s * 3 < self.election_min_s < self.election_max_s:
            raise ValueError(
                "election_min_s: needed is 3 x heartbeat_s < election_min_s < election_max_s, got "
                f"heartbeat_s={self.heartbeat_s} election_min_s={self.election_min_s} "
                f"election_max_s={self.election_max_s}"
            )
        sizes = ("max_entry_bytes", "max_pending_bytes", "snapshot_bytes", "retain_bytes", "segment_bytes")
        for name in (*sizes, "snapshot_entries", "snapshot_age_s"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1")
        if self.max_entry_bytes > 64 * MIB:
            raise ValueError("max_entry_bytes: at most 64 MiB")
        if self.retain_entries < 0:
            raise ValueError("retain_entries: must not be negative")
        if self.dead_server_cleanup_s and self.dead_server_cleanup_s < 5 * self.election_max_s:
            raise ValueError(
                f"dead_server_cleanup_s: 0, or at least 5 x election_max_s ({5 * self.election_max_s:g} s); a member "
                "that is only restarted must not be removed for good"
            )

    def _check_addresses(self) -> None:
        if self.node in self.peers:
            raise ValueError(f"peers: must not contain this node ({self.node!r})")
        for peer, address in self.peers.items():
            parse_address(f"peers[{peer}]", address)
        if self.advertise:
            parse_address("advertise", self.advertise)
        if self.join and not self.peers:
            raise ValueError("join: peers must hold the existing members, one of them at least")
        if self.peers or self.listen:
            parse_address("listen", self.listen)
            self._check_transport_security()

    @property
    def address(self) -> str:
        """Where the others dial this node."""
        return self.advertise or self.listen

    def _check_transport_security(self) -> None:
        if self.tls is not None:
            return
        if not self.plaintext_peers_for_tests:
            raise ValueError("tls: peers need mutual TLS (ca, cert and key files)")
        for address in (self.listen, *self.peers.values()):
            if parse_address("listen", address)[0] not in ("127.0.0.1", "::1", "localhost"):
                raise ValueError(f"plaintext_peers_for_tests: {address} is not a loopback address")


def parse_address(field_name: str, address: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` as (host, port). Raises ValueError naming `field_name`."""
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{field_name}: {address!r} is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


def is_wildcard(address: str) -> bool:
    """Whether `address` says where to listen and not where to dial."""
    return address.rpartition(":")[0] in ("0.0.0.0", "[::]", "::", "")  # asked, not bound # nosec B104
