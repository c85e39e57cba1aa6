"""A node's real raft process on a disk that fails on command: `python -m support.faulty_raft CONFIG CONTROL [LEDGER]`.

The shipped code has no switch for this; here the disk that the process would make for itself is replaced.
"""

from __future__ import annotations

import sys
from pathlib import Path

from controlplane.bootstrap.process import run_child
from controlplane.bootstrap.raft import FAILURES, REFUSALS, run_raft
from controlplane.consensus import runner
from support.faulty_disk import FaultyDisk


def install(control: Path, ledger: Path | None = None) -> None:
    """From now on every member of this process gets a FaultyDisk."""

    def disk(*, durable: bool) -> FaultyDisk:
        return FaultyDisk(durable=durable, control=control, ledger=ledger)

    runner.Disk = disk  # type: ignore[assignment,misc]


if __name__ == "__main__":
    install(Path(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    sys.exit(run_child("raft", run_raft, REFUSALS, FAILURES))
