"""One Raft core with a scripted outside: what it sends is recorded, what it hears is up to the test."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from unit.consensus.support import ListState

from controlplane.consensus.core import RaftCore
from controlplane.consensus.datadir import DataDirectory
from controlplane.consensus.disk import Disk
from controlplane.consensus.messages import AppendEntries, AppendReply, Message, VoteReply, VoteRequest
from controlplane.consensus.settings import RaftSettings
from controlplane.manifest import Manifest

M = TypeVar("M")


class RecordingDisk(Disk):
    """Notes every sync in the same list the outlet notes messages in; can fail."""

    def __init__(self, events: list[object]) -> None:
        super().__init__(durable=False)
        self._events = events
        self.failure: OSError | None = None

    def sync(self, fd: int) -> None:
        if self.failure is not None:
            raise self.failure
        self._events.append("sync")


class Rig:
    """Implements the core's Outlet and Hooks. `events` holds "sync" and (peer, message) in the order they happened."""

    def __init__(self, directory: Path, *, node: str = "a", peers: str = "bc", **limits: object) -> None:
        self.events: list[object] = []
        self.disk = RecordingDisk(self.events)
        self.settings = RaftSettings(
            node=node,
            cluster_id="c",
            data_dir=directory,
            listen="127.0.0.1:1" if peers else "",
            peers=dict.fromkeys(peers, "127.0.0.1:1"),
            plaintext_peers_for_tests=True,
            **{"election_min_s": 1000.0, "election_max_s": 2000.0, **limits},  # type: ignore[arg-type]
        )
        self.blocked: set[str] = set()
        self.snapshots_due = 0
        self.wakes = 0
        """How often a tick was asked for."""
        self.start()

    def start(self) -> None:
        self.state = ListState()
        settings = self.settings
        self.data = DataDirectory(
            settings.data_dir, settings.node, "c", self.disk, segment_bytes=settings.segment_bytes
        )
        self.core = RaftCore(
            self.settings,
            journal=self.data.journal,
            snapshots=self.data.snapshots,
            state=self.state,
            outlet=self,
            hooks=self,
        )
        for peer in self.settings.peers:
            self.core.connected(peer)

    def restart(self) -> None:
        self.data.close()
        self.start()

    # -- Outlet and Hooks ----------------------------------------------------------------------------------------------

    def send(self, peer: str, message: Message) -> bool:
        self.events.append((peer, message))
        return True

    def writable(self, peer: str) -> bool:
        return peer not in self.blocked

    def wake(self) -> None:
        self.wakes += 1

    def progressed(self) -> None:
        pass

    def snapshot_due(self) -> None:
        self.snapshots_due += 1

    def install_due(self) -> None:
        self.core.finish_install(self.core.prepare_install())

    # -- for tests -----------------------------------------------------------------------------------------------------

    def sent(self, kind: type[M], to: str | None = None) -> list[M]:
        """Messages of `kind` since the last call of `clear`."""
        return [message for peer, message in self.pairs() if isinstance(message, kind) and to in (None, peer)]

    def pairs(self) -> list[tuple[str, Message]]:
        """(receiver, message) since the last call of `clear`."""
        return [event for event in self.events if isinstance(event, tuple)]

    def clear(self) -> None:
        self.events.clear()

    def snapshot(self) -> Manifest:
        """Save the present state, as the node does when a snapshot is due."""
        manifest = self.data.snapshots.save(self.core.capture())
        self.core.snapshot_saved(manifest)
        return manifest

    def hear(self, peer: str, message: Message) -> None:
        """Receive and let the tick that follows run."""
        self.core.receive(peer, message)
        self.core.tick()

    def lead(self) -> None:
        """Win an election and commit the no-op."""
        self.core.campaign()
        self.core.tick()
        voters = list(self.settings.peers)[: (len(self.settings.peers) + 1) // 2]
        for peer in voters:
            self.hear(peer, VoteReply(self.core.term, granted=True, pre=False))
        assert self.core.is_leader or not self.settings.peers
        self.core.tick()
        for peer in voters:
            self.acknowledge(peer)

    def acknowledge(self, peer: str, index: int | None = None, round_number: int = 0) -> None:
        last = self.data.journal.last_index if index is None else index
        self.hear(peer, AppendReply(self.core.term, True, last, round_number))

    def heartbeat(self, peer: str = "b", term: int = 1, **overrides: object) -> None:
        fields: dict[str, object] = {
            "prev_index": 1,
            "prev_term": 0,
            "commit_index": 1,
            "round": 1,
            "entries": [],
            **overrides,
        }
        self.hear(peer, AppendEntries(term=term, **fields))  # type: ignore[arg-type]

    def ask_vote(self, peer: str, term: int, *, pre: bool = False, last: tuple[int, int] = (99, 99)) -> VoteReply:
        """(last_term, last_index) of the candidate default to more than anyone has."""
        self.clear()
        self.hear(peer, VoteRequest(term, last[1], last[0], pre))
        return self.sent(VoteReply, peer)[-1]

    def ask_handed_vote(self, peer: str, term: int, *, last: tuple[int, int] = (99, 99)) -> VoteReply:
        """A candidate asks whom the leader of the term before asked to stand."""
        self.clear()
        self.hear(peer, VoteRequest(term, last[1], last[0], pre=False, handed_over=True))
        return self.sent(VoteReply, peer)[-1]

    def wait_until(self, condition: Callable[[], bool], *, answering: str = "", timeout_s: float = 10.0) -> None:
        """Let time pass, with ticks, until `condition` holds; the `answering` peers confirm what they have."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s"
            time.sleep(0.01)
            for peer in answering:
                self.core.receive(peer, AppendReply(self.core.term, True, 1, 0))
            self.core.tick()

    def commands(self) -> list[bytes]:
        return [command[1:] for command, _, _ in self.data.journal[1:] if command[0] == 0]
