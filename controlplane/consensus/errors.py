"""Failures that stop a node. They are never retried or swallowed: a node that cannot trust its disk, its peers'
identity or its own invariants says why and ends, and the rest of the cluster goes on without it.
"""

from __future__ import annotations

import errno


class ConsensusError(Exception):
    """The node cannot run, or cannot go on running."""


class CorruptDataError(ConsensusError):
    """Bytes that were once durable no longer say what was written."""


class DiskError(ConsensusError):
    """A file operation failed. Starting again may mend it: the journal is then read and made durable anew."""


class DiskFullError(DiskError):
    """There is no space for what must be written."""


class IdentityMismatchError(ConsensusError):
    """The data directory belongs to another node, another cluster or another format."""


class DataDirectoryLockedError(ConsensusError):
    """Another live process uses the data directory."""


class CertificateError(ConsensusError):
    """This node's certificate or its CA's is out of date, so no peer would talk to it."""


class EngineMismatchError(ConsensusError):
    """The installed PySyncObj is not the one this package was written against."""


class DivergedError(ConsensusError):
    """This node's state is not the one that the others have: what it applied or loaded was wrong."""


class SafetyViolationError(ConsensusError):
    """A Raft invariant does not hold (two leaders in one term, a committed entry contradicted, an unknown entry
    kind).
    """


class RemovedError(ConsensusError):
    """The node was removed from the cluster. Its id is retired: it never takes part again."""


class LostDiskError(ConsensusError):
    """The other members know this node with another disk, so this one forgot its votes and what it acknowledged."""


def disk_error(doing: str, error: OSError) -> DiskError:
    """The failure of a file operation as what stops the node."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(f"{doing}: disk full ({error.strerror}); make space, the node goes on when started again")
    return DiskError(
        f"{doing}: {error}. What of it is on the disk is unknown until the node is started again; what was "
        "acknowledged before is not affected"
    )
