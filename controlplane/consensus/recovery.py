"""What is left to do when a majority of the voters is gone for good: one survivor goes on alone. Offline.

The survivor's own log becomes the truth, whole, the entries that were never committed included: nobody is left to say
which of them were acknowledged. A configuration of this node alone in the next incarnation is appended to it, so that a
crash leaves the log either as it was or recovered. All other ids are retired, and members of the old incarnation are
refused: they cannot merge into the recovered cluster with logs that went another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controlplane.consensus.configuration import Configuration, alone, encode
from controlplane.consensus.configurations import MEMBERSHIP_KIND, read_configurations
from controlplane.consensus.datadir import DataDirectory, holds_store
from controlplane.consensus.disk import Disk
from controlplane.consensus.errors import ConsensusError


@dataclass(frozen=True, slots=True)
class RecoveryPlan:
    """What `recover` will do, to be read by whoever decides."""

    data_dir: Path
    node: str
    cluster_id: str
    term: int
    last_term: int
    last_index: int
    commit_index: int
    before: Configuration
    after: Configuration

    @property
    def uncommitted(self) -> int:
        """Entries that this node does not know to be committed, and that will be."""
        return self.last_index - self.commit_index

    @property
    def lost(self) -> tuple[str, ...]:
        """The members that are given up."""
        return tuple(member.node for member in self.before.members if member.node != self.node)

    @property
    def warnings(self) -> tuple[str, ...]:
        lost = ", ".join(self.lost)
        texts = [
            f"Writes that were acknowledged and never reached {self.node} are lost. Recover the node whose log ends "
            f"latest: this one ends at index {self.last_index} of term {self.last_term} (compare the term first).",
        ]
        if self.uncommitted:
            texts.append(
                f"{self.uncommitted} entries after index {self.commit_index} are not known to be committed. They will "
                "be, also those whose writers were told that they failed or never were told anything."
            )
        if lost:
            texts.append(
                f"{lost}: make sure that these nodes are stopped and stay so. If enough of them still run to be a "
                f"majority, they go on as a cluster of their own. Their ids are retired: they come back only with an "
                "empty data directory under a new id."
            )
        member = self.before.find(self.node)
        if member is not None and member.role == "learner":
            texts.append(f"{self.node} was a learner, whose log may end earlier than any voter's.")
        return tuple(texts)

    def __str__(self) -> str:
        lines = [
            f"cluster       {self.cluster_id}",
            f"data          {self.data_dir}",
            f"log           ends at index {self.last_index} (term {self.last_term}), committed up to "
            f"{self.commit_index}",
            f"members now   {', '.join(f'{m.node} ({m.role})' for m in self.before.members)}",
            f"members then  {self.node}, the only voter",
            f"incarnation   {self.before.incarnation} -> {self.after.incarnation}",
            f"retired then  {', '.join(self.after.retired) or 'none'}",
        ]
        return "\n".join(lines + [f"warning: {text}" for text in self.warnings])


def plan_recovery(data_dir: Path, node: str, cluster_id: str, *, address: str) -> RecoveryPlan:
    """What a recovery of `node` would do; `address` is where future members will dial it.

    Nothing is changed that an ordinary start would not change too. Raises ConsensusError (DataDirectoryLockedError
    when the node runs) or OSError.
    """
    directory = _open(data_dir, node, cluster_id)
    try:
        return _plan(directory, data_dir, node, cluster_id, address)
    finally:
        directory.close()


def recover(plan: RecoveryPlan) -> None:
    """Carry `plan` out. Raises ConsensusError when the directory is not as it was planned, or in use; OSError."""
    directory = _open(plan.data_dir, plan.node, plan.cluster_id)
    try:
        member = plan.after.find(plan.node)
        assert member is not None
        if _plan(directory, plan.data_dir, plan.node, plan.cluster_id, member.address) != plan:
            raise ConsensusError(f"{plan.data_dir}: has changed since the plan was made; look at a new plan")
        journal = directory.journal
        term = max(journal.current_term, journal.last_term) + 1
        journal.set_term(term, None)
        journal.add(MEMBERSHIP_KIND + encode(plan.after), journal.last_index + 1, term)
        journal.sync()
    finally:
        directory.close()


def _open(data_dir: Path, node: str, cluster_id: str) -> DataDirectory:
    if not (data_dir / "identity.json").exists():
        raise ConsensusError(f"{data_dir}: holds no log; recovery needs the data directory of a member")
    if not holds_store(data_dir):
        raise ConsensusError(f"{data_dir}: is of an older release; start the node once with this one, then recover it")
    return DataDirectory(data_dir, node, cluster_id, Disk(durable=True))


def _plan(directory: DataDirectory, data_dir: Path, node: str, cluster_id: str, address: str) -> RecoveryPlan:
    journal, found = directory.journal, directory.snapshots.open()
    snapshot = (found.configuration, found.configuration_index) if found else (b"", 0)
    before = read_configurations(directory.founding, snapshot, journal[1:]).current
    if before is None:
        raise ConsensusError(f"{data_dir}: {node} has joined no cluster yet, so there is nothing to recover")
    if node in before.retired:
        raise ConsensusError(f"{node} was removed from the cluster; recover a node that is a member")
    return RecoveryPlan(
        data_dir=data_dir,
        node=node,
        cluster_id=cluster_id,
        term=max(journal.current_term, journal.last_term),
        last_term=journal.last_term,
        last_index=journal.last_index,
        commit_index=max(journal.commit_index, found.index if found else 0),
        before=before,
        after=alone(before, node, address),
    )
