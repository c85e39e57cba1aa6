"""Changing who belongs: one configuration at a time, each committed before the next.

The leader appends a configuration as an entry of its own kind and counts by it from that moment. It does so only when
an entry of its own term is committed (else it may not know the newest committed configuration, the fault found in the
thesis in 2015) and when the configuration before it is. PySyncObj's own membership command lacks that guard and stays
unused.
"""

from __future__ import annotations

from controlplane.consensus import engine
from controlplane.consensus.configuration import Configuration, check_step, encode, majority
from controlplane.consensus.configurations import MEMBERSHIP_KIND
from controlplane.consensus.engine import monotonic_s
from controlplane.consensus.errors import RemovedError
from controlplane.consensus.witness import Witness
from controlplane.ports import RefusedError


class Reconfigurable(Witness):
    """A member whose cluster may change."""

    def change_blocked(self) -> str:
        """Why no change may be appended now; empty when one may. For a leader."""
        if not self._leads_committed():
            return "this leader is new and has committed nothing yet"
        if self.configuration_index > self.commit_index:
            return f"another change (at index {self.configuration_index}) is not committed yet"
        if self.handing_over:
            return "the leadership is being handed over"
        silent = sorted(peer for peer in self._other_voters if self._node(peer) not in self._answered)
        if silent and monotonic_s() - self._leads_since_s < self._settings.election_min_s:
            return f"this leader is new and has not heard {', '.join(silent)} yet"
        return ""

    def change_configuration(self, new: Configuration, callback: engine.CommandCallback) -> None:
        """Append `new`, which counts from now on; `callback` as for `propose`. Raises RefusedError; nothing changed."""
        current = self.configuration
        if not self.is_leader or current is None:
            callback(None, engine.NOT_LEADER)
            return
        if blocked := self.change_blocked():
            raise RefusedError(f"{blocked}; try again")
        try:
            check_step(current, new)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        if self._settings.node not in new.voters:
            raise RefusedError(f"{self._settings.node} leads; it hands over before it is removed")
        self._check_reachable(current, new)
        index, term = self._journal.last_index + 1, self.term
        self._journal.add(MEMBERSHIP_KIND + encode(new), index, term)
        self._SyncObj__commandsWaitingCommit[index].append((term, callback))
        self._configurations.add(index, new)
        self._configure()
        self._hooks.wake()

    def answered_lately(self, peer: str) -> bool:
        """Whether `peer`, a follower of this leader, answered within the election timeout."""
        node = self._node(peer)
        at = self._SyncObj__lastResponseTime.get(node)
        return node in self._answered and at is not None and at > monotonic_s() - self._settings.election_max_s

    def answered_since(self, peer: str, at_s: float) -> bool:
        """Whether `peer`, a follower of this leader, answered after `at_s` of the engine's clock."""
        return self._SyncObj__lastResponseTime.get(self._node(peer), 0.0) > at_s

    def _check_reachable(self, old: Configuration, new: Configuration) -> None:
        """No change may leave voters of which a majority does not answer now."""
        if new.voters == old.voters:
            return
        silent = sorted(peer for peer in new.voters - {self._settings.node} if not self.answered_lately(peer))
        if len(new.voters) - len(silent) < majority(len(new.voters)):
            raise RefusedError(
                f"of the voters {', '.join(sorted(new.voters))} that this would leave, {', '.join(silent)} cannot be "
                "reached, and the rest is no majority: the cluster would stop. Bring them back, or remove them first"
            )

    def _leads_committed(self) -> bool:
        """Whether an entry of this term is committed, so that the commit index is known to be current."""
        no_op = self._SyncObj__noopIDx
        return no_op is not None and self.commit_index >= no_op

    def _configuration_committed(self, index: int) -> None:
        """The configuration at `index` is applied."""
        self._membership_version += 1
        _, configuration = self._configurations.at(index)
        if configuration is not None and self._settings.node in configuration.retired:
            raise RemovedError(
                f"{self._settings.node} was removed from the cluster. To use this machine again, empty its data "
                "directory and add it under a new id"
            )
