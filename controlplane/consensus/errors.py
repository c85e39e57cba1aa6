"""Failures that stop a node. They are never retried or swallowed: a node that cannot trust its disk, its peers'
identity or its own invariants says why and ends, and the rest of the cluster goes on without it.
"""

from __future__ import annotations


class ConsensusError(Exception):
    """The node cannot run, or cannot go on running."""


class CorruptDataError(ConsensusError):
    """Bytes that were once durable no longer say what was written."""


class IdentityMismatchError(ConsensusError):
    """The data directory belongs to another node, another cluster or another format."""


class DataDirectoryLockedError(ConsensusError):
    """Another live process uses the data directory."""


class EngineMismatchError(ConsensusError):
    """The installed PySyncObj is not the one this package was written against."""


class SafetyViolationError(ConsensusError):
    """A Raft invariant does not hold (two leaders in one term, a committed entry contradicted, an unknown entry
    kind).
    """
