"""Elections that disturb nobody: pre-vote before the term is raised, and no vote against a leader that is heard.

The engine runs the election itself once its deadline passes; this layer decides when it may, and answers the questions.
A vote is durable before the reply leaves, because the journal syncs inside `setCurrentTerm`.
"""

from __future__ import annotations

import math

from controlplane.consensus import engine
from controlplane.consensus.engine import EngineNode, monotonic_s
from controlplane.consensus.member import Member
from controlplane.consensus.messages import VoteReply, VoteRequest

_HUNG_UP_BEATS = 1.25
"""Heartbeats to wait for a leader whose connection closed, before an election is called."""
_TURN_BEATS = 1.5
"""And how many more for each member whose turn is earlier."""


class Voter(Member):
    """A member that takes part in elections."""

    def campaign(self) -> None:
        """Start an election at the next tick, without asking first: when there is no one to ask. Voters only."""
        if not self.is_voter:
            return
        self._SyncObj__raftElectionDeadline = 0.0
        self._await_leader()
        self._hooks.wake()

    def excuse_stall(self) -> None:
        """This process was late itself, so silence is no evidence yet: read what arrived before calling an election."""
        if not self.is_leader and self._other_voters:
            soonest = monotonic_s() + 2 * self._settings.heartbeat_s
            self._election_due_s = max(self._election_due_s, soonest)

    def _leader_hung_up(self, node: EngineNode) -> None:
        """The connection to `node` closed. When it led, this is how a process that ended looks: do not wait for its
        silence, and agree when others ask. The next heartbeat of a leader that lives takes all of it back.
        """
        if self.is_leader or self.leader != node.id:
            return
        self._led_at_s = -math.inf
        if not self.is_voter:
            return
        others = sorted(self._voters - {node.id})
        # One after the other, so that votes do not split; the first one leaves time for a heartbeat.
        turn = _HUNG_UP_BEATS + _TURN_BEATS * others.index(self._settings.node)
        self._election_due_s = min(self._election_due_s, monotonic_s() + turn * self._settings.heartbeat_s)
        self._hooks.wake()

    def _ask_before_election(self) -> None:
        """When an election is due, ask the others first whether it could be won."""
        if self.is_leader or self._election_due_s > monotonic_s():
            return
        self._await_leader()
        self._SyncObj__raftLeader = None
        if not self._other_voters:
            self.campaign()
        # A node whose state may be the wrong one leaves it to the others, or to the operator.
        if not self._other_voters or not self.is_voter or self._agreement.suspect:
            return
        self._pre_vote.begin(self.term + 1)
        question = VoteRequest(self.term + 1, self._journal.last_index, self._journal.last_term, pre=True)
        for peer in sorted(self._other_voters):
            self._send(self._node(peer), question)

    def _on_vote_request(self, node: EngineNode, message: VoteRequest) -> None:
        follows_another = self.leader != node.id and self._hears_leader(self._settings.election_min_s)
        if (self.is_leader or follows_another) and not message.handed_over:
            # Whoever asks cannot hear a leader that we hear; it will hear of it.
            self._send(node, VoteReply(self.term, False, message.pre))
            return
        up_to_date = (message.last_term, message.last_index) >= (self._journal.last_term, self._journal.last_index)
        # Its log would do, but snapshots of a wrong state must not come from a leader.
        electable = up_to_date and not self._agreement.outvoted(node.id)
        if message.pre:
            granted = electable and message.term > self.term
            self._send(node, VoteReply(message.term if granted else self.term, granted, True))
            return
        if message.term > self.term:
            self._adopt_term(message.term)
        granted = electable and message.term == self.term and self._SyncObj__votedForNodeId in (None, node.id)
        if granted:
            self._SyncObj__setCurrentTerm(self.term, node.id)
            self._await_leader()
        self._send(node, VoteReply(self.term, granted, False))

    def _on_vote_reply(self, node: EngineNode, message: VoteReply) -> None:
        if message.pre and message.granted:
            if (
                not self.is_leader
                and message.term == self.term + 1
                and self._pre_vote.grant(node.id, message.term, self._voters)
            ):
                self.campaign()
        elif message.term > self.term:
            self._adopt_term(message.term)
        elif (
            message.granted
            and self._SyncObj__raftState == engine.CANDIDATE
            and message.term == self.term
            and self._ballot.count(node.id, message.term, self._voters)
        ):
            self._SyncObj__onBecomeLeader()
