"""The replicated log: PySyncObj's Raft core with our own storage, transport, edges and reads.

`node.RaftNode` is the log inside one event loop, `server.serve` puts it behind a private unix socket, and
`client.LogClient` is the same port seen from a front process. Nothing outside this package imports pysyncobj, and
inside it only `engine` does.
"""

from __future__ import annotations

from controlplane.consensus.client import LogClient
from controlplane.consensus.errors import ConsensusError, CorruptDataError, IdentityMismatchError
from controlplane.consensus.node import RaftNode
from controlplane.consensus.recovery import RecoveryPlan, plan_recovery, recover
from controlplane.consensus.server import serve
from controlplane.consensus.settings import RaftSettings

__all__ = [
    "ConsensusError",
    "CorruptDataError",
    "IdentityMismatchError",
    "LogClient",
    "RaftNode",
    "RaftSettings",
    "RecoveryPlan",
    "plan_recovery",
    "recover",
    "serve",
]
