"""The one module that imports pysyncobj: a typed view of the parts of PySyncObj 0.3.17 this package stands on.

PySyncObj keeps the role, term, log, progress and commit rule, and drives elections and check-quorum in `_onTick`. Its
storage, transport, serializers and message handling are replaced by `core`. That reaches into private names, so the
version is pinned exactly and `check_engine` verifies every one of them before a node starts.
"""

# ruff: noqa: F401, N802, N803, N813, N815 - these are the names the engine gave them, seen by others through here
from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING

from controlplane.consensus.errors import EngineMismatchError

VERSION = "0.3.17"

FOLLOWER, CANDIDATE, LEADER = 0, 1, 2
REGULAR, NO_OP_KIND, MEMBERSHIP = 0, 1, 2
SUCCESS, DISCARDED, NOT_LEADER, QUEUE_FULL, UNKNOWN_OUTCOME = 0, 3, 4, 1, 7

CommandCallback = Callable[["tuple[int, int] | None", int], None]
"""(index and term, reason): the position only with SUCCESS."""

if TYPE_CHECKING:
    from controlplane.consensus.journal import LogEntry

    class EngineNode:
        id: str

        def __init__(self, id: str) -> None: ...

    class EngineConf:
        onStateChanged: Callable[[int, int], None] | None

    class EngineTransport:
        """Base of the transport handed to the engine."""

        def __init__(self, syncObj: object, selfNode: EngineNode, otherNodes: list[EngineNode]) -> None: ...

    class Engine:
        """SyncObj's names that `core` reads, writes or overrides."""

        _poller: object
        _SyncObj__raftState: int
        _SyncObj__raftCurrentTerm: int
        _SyncObj__votedForNodeId: str | None
        _SyncObj__votesCount: int
        _SyncObj__raftLeader: EngineNode | None
        _SyncObj__raftElectionDeadline: float
        _SyncObj__raftLog: object
        _SyncObj__raftCommitIndex: int
        _SyncObj__raftLastApplied: int
        _SyncObj__raftNextIndex: dict[EngineNode, int]
        _SyncObj__raftMatchIndex: dict[EngineNode, int]
        _SyncObj__lastResponseTime: dict[EngineNode, float]
        _SyncObj__otherNodes: set[EngineNode]
        _SyncObj__readonlyNodes: set[EngineNode]
        _SyncObj__connectedNodes: set[EngineNode]
        _SyncObj__newAppendEntriesTime: float
        _SyncObj__noopIDx: int | None
        _SyncObj__commandsWaitingCommit: dict[int, list[tuple[int, CommandCallback]]]
        _SyncObj__commandsQueue: EngineQueue

        def __init__(
            self, selfNode: EngineNode, otherNodes: list[EngineNode], conf: EngineConf, *, transport: EngineTransport
        ) -> None: ...
        def _onTick(self, timeToWait: float = 0.0) -> None: ...
        def _applyCommand(self, command: bytes, callback: CommandCallback, commandType: int) -> None: ...
        def _checkCommandsToApply(self) -> None: ...
        def _SyncObj__onNodeConnected(self, node: EngineNode) -> None: ...
        def _SyncObj__onNodeDisconnected(self, node: EngineNode) -> None: ...
        def _SyncObj__onBecomeLeader(self) -> None: ...
        def _SyncObj__setState(self, newState: int) -> None: ...
        def _SyncObj__setCurrentTerm(self, term: int, votedForNodeId: str | None) -> None: ...
        def _SyncObj__generateRaftTimeout(self) -> float: ...
        def _SyncObj__getEntries(self, fromIDx: int, count: int) -> list[LogEntry]: ...

    class EngineQueue:
        def get_nowait(self) -> tuple[bytes, CommandCallback]: ...

    class QueueEmpty(Exception): ...  # noqa: N818 - the name it has in `queue`

    def monotonic_s() -> float:
        """The engine's clock, CLOCK_MONOTONIC_RAW seconds; never mixed with time.monotonic."""
        ...

    def make_conf(**options: object) -> EngineConf: ...
else:
    from queue import Empty as QueueEmpty

    from pysyncobj import syncobj as _upstream
    from pysyncobj.config import SyncObjConf as make_conf
    from pysyncobj.monotonic import monotonic as monotonic_s
    from pysyncobj.node import Node as _UpstreamNode
    from pysyncobj.syncobj import SyncObj as Engine
    from pysyncobj.transport import Transport as EngineTransport

    class EngineNode(_UpstreamNode):
        """As the engine has it; what a tick looks up a dozen times is reckoned once."""

        def __init__(self, id):
            super().__init__(id)
            self._hash = hash(id)

        def __hash__(self):
            return self._hash

        __eq__ = _UpstreamNode.__eq__


# Methods whose code calls or is called by ours, with the parameters we count on.
METHODS: dict[str, tuple[str, ...]] = {
    "_onTick": ("self", "timeToWait"),
    "_applyCommand": ("self", "command", "callback", "commandType"),
    "_checkCommandsToApply": ("self",),
    "_SyncObj__onMessageReceived": ("self", "node", "message"),
    "_SyncObj__onNodeConnected": ("self", "node"),
    "_SyncObj__onNodeDisconnected": ("self", "node"),
    "_SyncObj__onBecomeLeader": ("self",),
    "_SyncObj__setState": ("self", "newState"),
    "_SyncObj__setCurrentTerm": ("self", "term", "votedForNodeId"),
    "_SyncObj__generateRaftTimeout": ("self",),
    "_SyncObj__getEntries": ("self", "fromIDx", "count", "maxSizeBytes"),
    "_SyncObj__sendAppendEntries": ("self",),
    "_SyncObj__applyLogEntries": ("self",),
    "_SyncObj__doApplyCommand": ("self", "command"),
    "_SyncObj__tryLogCompaction": ("self",),
    "_SyncObj__loadDumpFile": ("self", "clearJournal"),
    "_SyncObj__parseChangeClusterRequest": ("self", "command"),
}
ATTRIBUTES: tuple[str, ...] = (
    "_poller",
    "_SyncObj__raftState",
    "_SyncObj__raftCurrentTerm",
    "_SyncObj__votedForNodeId",
    "_SyncObj__votesCount",
    "_SyncObj__raftLeader",
    "_SyncObj__raftElectionDeadline",
    "_SyncObj__raftLog",
    "_SyncObj__raftCommitIndex",
    "_SyncObj__raftLastApplied",
    "_SyncObj__raftNextIndex",
    "_SyncObj__raftMatchIndex",
    "_SyncObj__lastResponseTime",
    "_SyncObj__otherNodes",
    "_SyncObj__readonlyNodes",
    "_SyncObj__connectedNodes",
    "_SyncObj__newAppendEntriesTime",
    "_SyncObj__noopIDx",
    "_SyncObj__commandsWaitingCommit",
    "_SyncObj__commandsQueue",
)


def check_engine(version: str, engine: type) -> None:
    """Raises EngineMismatchError unless `engine` has the version and methods `core` relies on."""
    if version != VERSION:
        raise EngineMismatchError(f"pysyncobj {version} is installed, exactly {VERSION} is needed")
    for name, parameters in METHODS.items():
        method = getattr(engine, name, None)
        if method is None:
            raise EngineMismatchError(f"pysyncobj {version} has no method {name}")
        found = tuple(inspect.signature(method).parameters)
        if found != parameters:
            raise EngineMismatchError(f"pysyncobj {version}: {name} takes {found}, expected {parameters}")


def check_instance(engine: Engine) -> None:
    """Raises EngineMismatchError unless a constructed engine has the attributes `core` relies on."""
    missing = [name for name in ATTRIBUTES if name not in vars(engine)]
    if missing:
        raise EngineMismatchError(f"pysyncobj {VERSION} lacks {', '.join(missing)}")
    for name, value in (("FOLLOWER", FOLLOWER), ("CANDIDATE", CANDIDATE), ("LEADER", LEADER)):
        if upstream_constant("_RAFT_STATE", name) != value:
            raise EngineMismatchError(f"pysyncobj {VERSION}: _RAFT_STATE.{name} is not {value}")
    for name, value in (("REGULAR", REGULAR), ("NO_OP", NO_OP_KIND), ("MEMBERSHIP", MEMBERSHIP)):
        if upstream_constant("_COMMAND_TYPE", name) != value:
            raise EngineMismatchError(f"pysyncobj {VERSION}: _COMMAND_TYPE.{name} is not {value}")


if TYPE_CHECKING:

    def upstream_constant(holder: str, name: str) -> int: ...
    def installed_version() -> str: ...
    def upstream_engine() -> type: ...
else:

    def upstream_constant(holder, name):
        return getattr(getattr(_upstream, holder), name)

    def installed_version():
        return _upstream.VERSION

    def upstream_engine():
        return _upstream.SyncObj
