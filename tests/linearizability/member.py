"""The raft process as shipped, but for what a test replaces: `python -m linearizability.member CONFIG JSON`.

The JSON object of `Replaced` says what: the disk (one that fails on command and keeps a ledger of what was synced), how
much of the log stays below a snapshot, and, for the build that must be found out, reads that are answered from what
this node knows. The shipped code has a switch for none of it.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import msgspec
from support import faulty_raft

from controlplane.bootstrap import raft
from controlplane.bootstrap.process import run_child
from controlplane.consensus import RaftNode, RaftSettings
from controlplane.settings import NodeSettings


class Replaced(msgspec.Struct, omit_defaults=True):
    control: str
    """File that tells the disk how to behave; see support.faulty_disk."""
    ledger: str
    retain_entries: int = 5_000
    """Kept below a snapshot: few, so that a member that was away needs a snapshot."""
    stale_reads: bool = False


class StaleReads(RaftNode):
    """A deliberately broken build: it answers reads without asking anybody whether it is up to date."""

    async def read_index(self, *, timeout_s: float) -> int:
        return self._running().entry_index


def install(replaced: Replaced) -> None:
    faulty_raft.install(Path(replaced.control), Path(replaced.ledger))
    shipped = raft.raft_settings

    def raft_settings(settings: NodeSettings) -> RaftSettings:
        return replace(shipped(settings), retain_entries=replaced.retain_entries)

    raft.raft_settings = raft_settings
    if replaced.stale_reads:
        raft.RaftNode = StaleReads  # type: ignore[misc]


if __name__ == "__main__":
    install(msgspec.json.decode(sys.argv[2], type=Replaced))
    sys.exit(run_child("raft", raft.run_raft, raft.REFUSALS, raft.FAILURES))
