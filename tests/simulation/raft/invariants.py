"""What must hold after every step, checked where something changed.

Election safety, log matching, leader completeness, state-machine safety, durability of what was promised (terms,
votes, acknowledged entries), acknowledged writes at their place, refused writes nowhere, reads that see every write
acknowledged before they began, and no leader confirmed after the election of the next one. Each is stated on what
processes did and said, not on how the core does it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from simulation.raft.process import Confirmation, Process, Proposal, Read

from controlplane.consensus import engine
from controlplane.consensus.configuration import decode
from controlplane.consensus.core import RaftCore
from controlplane.consensus.messages import (
    AppendEntries,
    AppendReply,
    Message,
    SnapshotData,
    SnapshotFetch,
    SnapshotOffer,
    VoteReply,
    VoteRequest,
)

_OWN_TERM = (AppendEntries, AppendReply, SnapshotOffer, SnapshotFetch, SnapshotData)
Entry = tuple[int, bytes]
BUSY_TICKS = 200


class Violation(AssertionError):  # noqa: N818 - the word for it
    """An invariant does not hold. `kind` names which, for the minimiser."""

    def __init__(self, kind: str, what: str) -> None:
        super().__init__(kind, what)
        self.kind = kind

    def __str__(self) -> str:
        return ": ".join(self.args)


class Checker:
    def __init__(self, seen: Counter[str], processes: Mapping[str, Process]) -> None:
        self._seen = seen
        self._processes = processes
        self.leaders: dict[int, str] = {}
        self.votes: dict[tuple[str, int], str] = {}
        self.entries: dict[tuple[int, int], tuple[bytes, int]] = {}
        """(index, term) -> (command, term of the entry before)."""
        self.committed: dict[int, Entry] = {}
        self.committed_in: dict[int, int] = {}
        """The term of the first process that was seen to have it committed."""
        self.last_committed = 1
        self.digests: dict[int, str] = {}
        self.floor = 0
        """The highest index acknowledged to a client, or seen by one of its reads."""
        self.proposals: list[Proposal] = []
        self.belonging: list[str] = sorted(processes)
        """The members of the newest committed configuration, and every id that was retired by any."""
        self.retired: set[str] = set()

    # -- what processes say --------------------------------------------------------------------------------------------

    def sent(self, process: Process, peer: str, message: Message) -> None:
        memory = process.memory
        match message:
            case VoteRequest(pre=False):
                self._vote(process.name, message.term, process.name)
                memory.said_term = max(memory.said_term, message.term)
            case VoteReply(pre=False, granted=True):
                self._vote(process.name, message.term, peer)
                memory.said_term = max(memory.said_term, message.term)
                self._seen["vote granted"] += 1
            case VoteReply():
                self._seen["pre-vote granted" if message.granted else "vote refused"] += 1
            case AppendReply(success=True):
                memory.promised_index = max(memory.promised_index, message.index)
                memory.said_term = max(memory.said_term, message.term)
            case AppendReply():
                self._seen["append refused"] += 1
            case SnapshotFetch(installed=True):
                memory.promised_index = max(memory.promised_index, message.index)
                self._seen["snapshot installed"] += 1
            case SnapshotData():
                self._seen["snapshot chunk sent"] += len(message.chunks)
                if message.chunks and message.chunks[0][0] > 0:
                    self._seen["snapshot of several chunks"] += 1
            case _:
                if isinstance(message, _OWN_TERM):
                    memory.said_term = max(memory.said_term, message.term)

    def _vote(self, voter: str, term: int, candidate: str) -> None:
        given = self.votes.setdefault((voter, term), candidate)
        if given != candidate:
            raise Violation("two votes", f"{voter} voted for {given} and for {candidate} in term {term}")

    # -- what processes are --------------------------------------------------------------------------------------------

    def started(self, process: Process) -> None:
        """A process came back: what it promised before must be on its disk."""
        core, memory, journal = process.core, process.memory, process.data.journal
        assert core is not None
        if core.term < memory.said_term:
            raise Violation("term lost", f"{process.name} was in term {memory.said_term} and came back in {core.term}")
        memory.term = core.term
        if journal.last_index < memory.promised_index:
            raise Violation(
                "promise lost",
                f"{process.name} had acknowledged {memory.promised_index} and came back with {journal.last_index}",
            )
        memory.fast = None
        memory.led_term = 0
        memory.commit_index = min(memory.commit_index, core.commit_index)

    def after(self, process: Process) -> None:
        """`process` did something."""
        core = process.core
        if core is None:
            return
        journal, memory = process.data.journal, process.memory
        term, leads, commit = core.term, core.is_leader, core.commit_index
        fast = term, leads, journal.last_index, journal.last_term, commit, core.entry_index, journal.base_index
        if fast == memory.fast:
            return
        memory.fast = fast
        if term < memory.term:
            raise Violation("term went back", f"{process.name} from {memory.term} to {term}")
        memory.term = term
        self._match_log(process)
        if commit > memory.commit_index:
            self._commit(process, core, leads=leads)
        elif commit < memory.commit_index:
            raise Violation("commit went back", f"{process.name} from {memory.commit_index} to {commit}")
        if leads and memory.led_term != term:
            memory.led_term = term
            self._new_leader(process, term)
        if not leads:
            memory.led_term = 0
        if core.entry_index:
            digest = process.state.digest()
            if self.digests.setdefault(core.entry_index, digest) != digest:
                raise Violation("states differ", f"{process.name} has another state at {core.entry_index}")

    def ticked(self, process: Process, now_s: float) -> None:
        """A process that hears nothing has a few deadlines in a second, and rests in between."""
        memory = process.memory
        if memory.heard != memory.row_heard or now_s > memory.row_began_s + 1.0:
            memory.row_heard, memory.row_began_s, memory.row_ticks = memory.heard, now_s, 0
        memory.row_ticks += 1
        if memory.row_ticks > BUSY_TICKS:
            raise Violation("busy", f"{process.name} ticked {BUSY_TICKS} times within a second and heard nothing")

    def died_inside(self, process: Process) -> None:
        """`process` died in the middle of something: its role and term may contradict each other, but what it had
        committed may have been told to a client."""
        core, memory = process.core, process.memory
        if core is not None and core.commit_index > memory.commit_index:
            self._match_log(process)
            self._commit(process, core, leads=False)

    def _new_leader(self, process: Process, term: int) -> None:
        self._seen["leader elected"] += 1
        other = self.leaders.setdefault(term, process.name)
        if other != process.name:
            raise Violation("two leaders", f"{other} and {process.name} in term {term}")
        journal = process.data.journal
        for index in range(self.last_committed, journal.base_index, -1):
            if self.committed_in.get(index, term) < term:
                if journal.term_at(index) != self.committed[index][0]:
                    raise Violation(
                        "leader incomplete", f"{process.name} leads in term {term} without the committed entry {index}"
                    )
                # The logs match below it.
                return

    def _match_log(self, process: Process) -> None:
        """Register what is new in the log: (index, term) says what the entry is and which term comes before it."""
        journal, memory = process.data.journal, process.memory
        known, last = memory.log_terms, journal.last_index
        if last < memory.promised_index:
            memory.promised_index = last
        index = min(last, memory.last_index)
        base = journal.base_index
        while index > base and journal.term_at(index) != known.get(index):
            index -= 1
        if index < memory.last_index:
            self._seen["entries truncated"] += 1
        for gone in range(index + 1, memory.last_index + 1):
            known.pop(gone, None)
        self._register(process, max(index, base))
        memory.last_index = last

    def _register(self, process: Process, after: int) -> None:
        journal, known = process.data.journal, process.memory.log_terms
        base = journal.base_index
        before = journal.term_at(after)
        known[after] = before if before is not None else 0
        for command, index, term in journal[after + 1 - base : len(journal)]:
            assert before is not None
            found = self.entries.setdefault((index, term), (command, before))
            if found != (command, before):
                raise Violation("logs differ", f"{process.name} has another entry {index} of term {term}")
            known[index] = before = term

    def whole_log(self, process: Process) -> None:
        """The incremental look may miss a change in the middle; this one does not."""
        if process.core is not None:
            self._register(process, process.data.journal.base_index)
            self._compare_committed(process, process.data.journal.base_index, process.core.commit_index)

    def _commit(self, process: Process, core: RaftCore, *, leads: bool) -> None:
        journal, memory, commit = process.data.journal, process.memory, core.commit_index
        if leads and memory.led_term == core.term and journal.term_at(commit) != core.term:
            raise Violation(
                "commit by an old term",
                f"{process.name} leads in term {core.term} and counted entry {commit} of {journal.term_at(commit)}",
            )
        if leads and memory.led_term == core.term:
            self._on_a_majority(process, commit, core.term)
        self._compare_committed(process, max(memory.commit_index, journal.base_index), commit)
        memory.commit_index = commit

    def _on_a_majority(self, leader: Process, index: int, term: int) -> None:
        """What a leader counts as committed is what a majority has acknowledged and still has."""
        having = {
            name
            for name, other in self._processes.items()
            if other.lost_disk
            or (
                other.memory.promised_index >= index
                and (other.memory.log_terms.get(index) == term or other.data.journal.base_index >= index)
            )
        }
        voters = leader.voters()
        if len((having | {leader.name}) & voters) <= len(voters) // 2:
            raise Violation("committed without a majority", f"{leader.name} counts entry {index}, {having} have it")

    def _compare_committed(self, process: Process, after: int, up_to: int) -> None:
        journal = process.data.journal
        base = journal.base_index
        for command, index, term in journal[after + 1 - base : max(up_to, after) + 1 - base]:
            known = self.committed.get(index)
            if known is None:
                self.committed[index] = term, command
                if command[0] == engine.MEMBERSHIP:
                    configuration = decode(command[1:])
                    self.belonging = [member.node for member in configuration.members]
                    self.retired.update(configuration.retired)
                self.committed_in[index] = process.core.term if process.core else term
                self.last_committed = max(self.last_committed, index)
            elif known != (term, command):
                raise Violation(
                    "committed entry replaced",
                    f"{process.name} has term {term} at {index}, where term {known[0]} was committed",
                )

    # -- what clients saw ----------------------------------------------------------------------------------------------

    def acknowledged(self, proposal: Proposal, term: int) -> None:
        known = self.committed.get(proposal.index)
        if known is None or known[0] != term or known[1][1:] != proposal.entry:
            raise Violation("false acknowledgement", f"{proposal.entry!r} is not the committed entry {proposal.index}")
        self.floor = max(self.floor, proposal.index)

    def read(self, process: Process, read: Read) -> None:
        assert process.core is not None
        assert read.index is not None
        if read.index < read.floor:
            raise Violation(
                "stale read",
                f"{process.name} answered from {read.index}, but {read.floor} was known before the read began",
            )
        self.floor = max(self.floor, read.index)

    def confirmed(self, process: Process, asked: Confirmation, index: int, term: int) -> None:
        """Leases stand on it: a deposed leader that is asked after the election of the next one has no proof."""
        if self.leaders.get(term) != process.name:
            raise Violation(
                "false leader", f"{process.name} was confirmed in term {term}, {self.leaders.get(term)} led it"
            )
        if term < asked.elected:
            raise Violation(
                "stale leader",
                f"{process.name} was confirmed in term {term}, asked when term {asked.elected} had a leader already",
            )
        if index < asked.floor:
            raise Violation("stale leader", f"{process.name} was confirmed at {index}, {asked.floor} was known before")

    def verdict(self, processes: Iterable[Process]) -> None:
        """At the end, when everybody has caught up."""
        states = {process.name: process.state.entries for process in processes}
        entries = next(iter(states.values()))
        if any(other != entries for other in states.values()):
            raise Violation("states differ", "at the end")
        present = set(entries)
        if len(present) != len(entries):
            raise Violation("applied twice", f"{len(entries) - len(present)} entries")
        for proposal in self.proposals:
            if proposal.result == "acknowledged" and proposal.entry not in present:
                raise Violation("acknowledged write lost", f"{proposal.entry!r} at {proposal.index}")
            if proposal.result == "refused" and proposal.entry in present:
                raise Violation("refused write applied", repr(proposal.entry))
