"""Elections that disturb nobody: pre-vote before the term is raised, and no vote against a leader that is heard.

The engine runs the election itself once its deadline passes; this layer decides when it may, and answers the questions.
A vote is durable before the reply leaves, because the journal syncs inside `setCurrentTerm`.
"""

from __future__ import annotations

from controlplane.consensus import engine
from controlplane.consensus.engine import EngineNode, monotonic_s
from controlplane.consensus.member import Member
from controlplane.consensus.messages import VoteReply, VoteRequest


class Voter(Member):
    """A member that takes part in elections."""

    def campaign(self) -> None:
        """Start an election at the next tick, without asking first: when there is no one to ask."""
        self._may_campaign = True
        self._SyncObj__raftElectionDeadline = 0.0
        self._hooks.wake()

    def excuse_stall(self) -> None:
        """This process was late itself, so silence is no evidence yet: read what arrived before calling an election."""
        if not self.is_leader and self._nodes:
            soonest = monotonic_s() + 2 * self._settings.heartbeat_s
            self._SyncObj__raftElectionDeadline = max(self._SyncObj__raftElectionDeadline, soonest)

    def _ask_before_election(self) -> None:
        """When the engine's election is due, postpone it and ask the others first whether it could be won."""
        now = monotonic_s()
        if self._may_campaign or self.is_leader or not self._nodes or self._SyncObj__raftElectionDeadline >= now:
            self._may_campaign = False
            return
        self._SyncObj__raftElectionDeadline = now + self._SyncObj__generateRaftTimeout()
        self._SyncObj__raftLeader = None
        self._pre_vote.begin(self.term + 1)
        question = VoteRequest(self.term + 1, self._journal.last_index, self._journal.last_term, pre=True)
        for node in self._nodes.values():
            self._send(node, question)

    def _on_vote_request(self, node: EngineNode, message: VoteRequest) -> None:
        horizon = monotonic_s() - self._settings.election_min_s
        if self.is_leader or (self._SyncObj__raftLeader is not None and self._leader_is_fresh(horizon)):
            # Whoever asks cannot hear a leader that we hear; it will hear of it.
            self._send(node, VoteReply(self.term, False, message.pre))
            return
        up_to_date = (message.last_term, message.last_index) >= (self._journal.last_term, self._journal.last_index)
        if message.pre:
            granted = up_to_date and message.term > self.term
            self._send(node, VoteReply(message.term if granted else self.term, granted, True))
            return
        if message.term > self.term:
            self._adopt_term(message.term)
        granted = up_to_date and message.term == self.term and self._SyncObj__votedForNodeId in (None, node.id)
        if granted:
            self._SyncObj__setCurrentTerm(self.term, node.id)
            self._SyncObj__raftElectionDeadline = monotonic_s() + self._SyncObj__generateRaftTimeout()
        self._send(node, VoteReply(self.term, granted, False))

    def _on_vote_reply(self, node: EngineNode, message: VoteReply) -> None:
        if message.pre and message.granted:
            if not self.is_leader and message.term == self.term + 1 and self._pre_vote.grant(node.id, message.term):
                self.campaign()
        elif message.term > self.term:
            self._adopt_term(message.term)
        elif (
            message.granted
            and self._SyncObj__raftState == engine.CANDIDATE
            and message.term == self.term
            and self._ballot.count(node.id, message.term)
        ):
            self._SyncObj__onBecomeLeader()
