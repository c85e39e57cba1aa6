"""The raft process as shipped, but for what a test replaces: `python -m linearizability.member CONFIG JSON`.

The JSON object of `Replaced` says what: the disk (one that fails on command and keeps a ledger of what was synced),
the point at which snapshots are taken (early, so that short runs have them), and, for the build that must be found
out, reads that are answered from what this node knows. The shipped code has a switch for none of it.
"""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path

import msgspec
from support import faulty_raft

from controlplane.bootstrap import raft
from controlplane.bootstrap.process import run_child
from controlplane.consensus import RaftNode, RaftSettings


class Replaced(msgspec.Struct, omit_defaults=True):
    control: str
    """File that tells the disk how to behave; see support.faulty_disk."""
    ledger: str
    snapshot_entries: int | None = None
    retain_entries: int = 200
    stale_reads: bool = False


class StaleReads(RaftNode):
    """A deliberately broken build: it answers reads without asking anybody whether it is up to date."""

    async def read_index(self, *, timeout_s: float) -> int:
        return self._running().entry_index


def install(replaced: Replaced) -> None:
    faulty_raft.install(Path(replaced.control), Path(replaced.ledger))
    if replaced.snapshot_entries is not None:
        limits = {"snapshot_entries": replaced.snapshot_entries, "retain_entries": replaced.retain_entries}
        raft.RaftSettings = partial(RaftSettings, **limits)  # type: ignore[assignment,misc]
    if replaced.stale_reads:
        raft.RaftNode = StaleReads  # type: ignore[misc]


if __name__ == "__main__":
    install(msgspec.json.decode(sys.argv[2], type=Replaced))
    sys.exit(run_child("raft", raft.run_raft, raft.REFUSALS, raft.FAILURES))
