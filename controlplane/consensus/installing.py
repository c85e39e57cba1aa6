"""A snapshot on its way from a leader into a follower's state.

Fetching goes message by message; loading and publishing what was fetched is long work, which `prepare_install` does in
any thread while the member goes on to answer its leader; `finish_install` then puts the new state in place at once.
The state is durable on disk before it is used: a crash in between finds the new snapshot and an older journal, which
recovery resets.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from controlplane.consensus import engine
from controlplane.consensus.engine import EngineNode, monotonic_s
from controlplane.consensus.errors import SafetyViolationError
from controlplane.consensus.messages import SnapshotData, SnapshotFetch, SnapshotOffer
from controlplane.consensus.pacing import Pace, unhurried
from controlplane.consensus.replication import Replicator
from controlplane.consensus.snapshot import Adopt
from controlplane.consensus.transfers import Incoming
from controlplane.manifest import Manifest, ManifestError

_log = logging.getLogger(__name__)

Prepared = Adopt | Iterable[int]


class Installer(Replicator):
    """A member that offers snapshots and installs those it is offered."""

    # -- the leader's side ---------------------------------------------------------------------------------------------

    def _on_fetch(self, node: EngineNode, message: SnapshotFetch) -> None:
        if not self._answers_leader(node, message.term):
            return
        outgoing = self._outgoing.get(node)
        if outgoing is None or outgoing.hash != message.hash:
            return
        if message.installed:
            self._outgoing.pop(node).reader.close()
            match_index = self._SyncObj__raftMatchIndex
            match_index[node] = max(match_index[node], outgoing.index)
            self._SyncObj__raftNextIndex[node] = match_index[node] + 1
        elif (answer := outgoing.answer(self.term, message, monotonic_s())) is not None:
            self._send(node, answer)

    # -- the follower's side -------------------------------------------------------------------------------------------

    def _on_offer(self, node: EngineNode, message: SnapshotOffer) -> None:
        if not self._follow(node, message.term):
            # The sender learns the term; it asks for nothing.
            self._send(node, SnapshotFetch(self.term, message.index, message.hash, message.size, [], installed=False))
            return
        if message.index <= self.commit_index and not self._installing:
            self._drop_incoming()
            # What this promises must be on disk.
            self._flush()
            self._send(node, SnapshotFetch(self.term, message.index, message.hash, 0, [], installed=True))
            return
        if self._installing:
            self._send(node, SnapshotFetch(self.term, message.index, message.hash, message.size, [], installed=False))
            return
        incoming = self._incoming
        if incoming is None or incoming.hash != message.hash:
            pack = self._snapshots.begin_receiving() if incoming is None else incoming.pack
            self._incoming = None
            incoming = Incoming(message, pack, self._snapshots.has)
            self._incoming = incoming
        incoming.repeat()
        self._go_on(node, incoming)

    def _on_data(self, node: EngineNode, message: SnapshotData) -> None:
        incoming = self._incoming
        if not self._follow(node, message.term) or incoming is None or incoming.hash != message.hash:
            return
        if self._installing:
            return
        had_manifest = incoming.manifest
        try:
            incoming.accept(message)
        except ManifestError as error:
            _log.error("%s: %s sent a damaged snapshot: %s", self._settings.node, node.id, error)
            if incoming.manifest is None:
                self._drop_incoming()
                return
        if incoming.manifest is not None and had_manifest is None:
            self._check_origin(incoming.manifest)
        self._go_on(node, incoming)

    def _go_on(self, node: EngineNode, incoming: Incoming) -> None:
        for request in incoming.requests(self.term):
            self._send(node, request)
        if incoming.complete:
            self._installing = True
            self._hooks.install_due()

    def _check_origin(self, manifest: Manifest) -> None:
        if manifest.cluster_id != self._settings.cluster_id:
            raise SafetyViolationError(f"the leader sent a snapshot of cluster {manifest.cluster_id!r}")

    def _drop_incoming(self) -> None:
        if self._incoming is not None:
            self._incoming.pack.discard()
            self._incoming = None

    def prepare_install(self, pace: Pace = unhurried) -> Prepared:
        """Load and publish what was fetched. In any thread; call `finish_install` with the result.

        Raises CorruptDataError, OSError, or what `pace` raises.
        """
        incoming = self._incoming
        assert incoming is not None
        assert incoming.manifest is not None
        return self._snapshots.receive(incoming.encoded, incoming.manifest, incoming.pack, self._state, pace)

    def finish_install(self, prepared: Prepared) -> None:
        """Use what `prepare_install` prepared."""
        incoming = self._incoming
        assert incoming is not None
        assert incoming.manifest is not None
        self._installing = False
        if not callable(prepared):
            # Chunks of an older snapshot of this node went while it was fetching; the next offer asks for them.
            incoming.lack(prepared)
            return
        self._incoming = None
        manifest = incoming.manifest
        if manifest.index <= self.commit_index:
            return
        _log.info(
            "%s: installing the snapshot at %d, %d of its %d bytes fetched",
            self._settings.node,
            manifest.index,
            incoming.fetched_bytes,
            manifest.size,
        )
        self._flush()
        prepared()
        self._stands_at(manifest)
        if self._journal.term_at(manifest.index) != manifest.term:
            self._journal.reset(manifest.index, manifest.term)
        self._SyncObj__raftLastApplied = manifest.index
        self._commit(manifest.index)
        self._read_configurations(manifest)
        waiting = self._SyncObj__commandsWaitingCommit
        for index in [index for index in waiting if index <= manifest.index]:
            for _, callback in waiting.pop(index):
                callback(None, engine.UNKNOWN_OUTCOME)
        leader = self._SyncObj__raftLeader
        if leader is not None and leader.id != self._settings.node:
            self._send(leader, SnapshotFetch(self.term, manifest.index, incoming.hash, 0, [], installed=True))
        self._hooks.progressed()
