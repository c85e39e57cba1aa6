"""Whom this node hears, and how old what it knows may be, from the log's status looked at a few times a second. Pure.

A node without a leader cannot tell whether the others have one and go on without it. So it has to know two things of
itself: since when there has been none, and up to when it surely had everything that was acknowledged anywhere. The
second is not "now" even while there is a leader: a follower knows what the leader knew when it was last heard, a leader
that it led when a majority last answered, and the replica follows either a little later.

Two followers have nothing to say to each other while a leader is heard, so their silence is evidence only after they
had reason to talk: without a leader they ask each other for votes, again and again.
"""

from __future__ import annotations

from collections import deque

from controlplane.ports import Contact, LogStatus, PeerStatus

HEARD_S = 2.0
"""Two rounds of asking for votes: who has not been heard for so long cannot be talked to."""
SILENT_S = 3.0
"""A log process that was not seen for so long leads and follows nobody, whatever it said last."""
_KEPT = 64
"""Looks that the replica may be behind; older ones are let go, which makes what is known look older."""


class ContactKeeper:
    """Times are seconds of one monotonic clock."""

    def __init__(self, now_s: float) -> None:
        self._status: LogStatus | None = None
        """The last one; what it says counts while the log answers."""
        self._answers = False
        self._looked_s = now_s
        self._leader: str | None = None
        self._since_s = now_s
        self._known_s = now_s
        self._looks: deque[tuple[int, float]] = deque(maxlen=_KEPT)
        """Entries that the replica has to have, for knowing everything up to when; not reached yet."""

    def look(self, status: LogStatus | None, now_s: float) -> None:
        """`status` is as it is now; None when the log could not be asked."""
        self._answers = status is not None
        if status is not None:
            self._status, self._looked_s = status, now_s
        self._note_leader(now_s)
        if status is not None and self._leader is not None and (heard_s := _backed_s(status)) is not None:
            self._looks.append((status.entry_index, now_s - heard_s))

    def leads_or_follows(self, now_s: float) -> bool:
        """There is a leader, for this node; cheap."""
        return self._is_answering(now_s) and self._status is not None and self._status.has_quorum

    def lost_s(self, now_s: float) -> float:
        """For how long the log, though it answers, has known no leader; 0 while it does, or does not answer."""
        self._note_leader(now_s)
        return now_s - self._since_s if self._leader is None and self._is_answering(now_s) else 0.0

    def read(self, index: int, now_s: float) -> Contact:
        """As it is for a replica that has applied `index`."""
        self._note_leader(now_s)
        while self._looks and self._looks[0][0] <= index:
            self._known_s = max(self._known_s, self._looks.popleft()[1])
        status, since_s = self._status, now_s - self._since_s
        if status is None:
            return Contact(node="", role="silent", term=0, leader=None, since_s=since_s, age_s=now_s - self._known_s)
        voters = {each.node for each in status.members if each.role == "voter"}
        peers = [peer for peer in status.peers if not peer.learner and (not voters or peer.node in voters)]
        quiet = self._leader is not None or since_s < HEARD_S
        answers = self._is_answering(now_s)
        hears = tuple(peer.node for peer in peers if answers and _is_heard(peer, status, quiet=quiet))
        votes = not voters or status.node in voters
        return Contact(
            node=status.node,
            role=status.role if answers else "silent",
            term=status.term,
            leader=self._leader,
            since_s=since_s,
            age_s=now_s - self._known_s,
            hears=hears,
            misses=tuple(peer.node for peer in peers if peer.node not in hears),
            majority=(len(peers) + votes) // 2 + 1,
            votes=votes,
        )

    def _is_answering(self, now_s: float) -> bool:
        return self._answers and now_s - self._looked_s < SILENT_S

    def _note_leader(self, now_s: float) -> None:
        status = self._status
        leader = status.leader if status is not None and self.leads_or_follows(now_s) else None
        if leader != self._leader:
            self._leader, self._since_s = leader, now_s


def _is_heard(peer: PeerStatus, status: LogStatus, *, quiet: bool) -> bool:
    """quiet: nobody but the leader has had reason to speak."""
    if not peer.connected:
        return False
    silent_ok = quiet and status.role != "leader" and peer.node != status.leader
    return silent_ok or (peer.last_contact_ms is not None and peer.last_contact_ms <= HEARD_S * 1000)


def _backed_s(status: LogStatus) -> float | None:
    """How long ago this node surely knew the newest: when it heard its leader, or was answered as the leader."""
    if status.role == "leader":
        voters = [peer for peer in status.peers if not peer.learner]
        needed = (len(voters) + 1) // 2
        heard_s = sorted(peer.last_contact_ms / 1000 for peer in voters if peer.last_contact_ms is not None)
        return 0.0 if not needed else heard_s[needed - 1] if len(heard_s) >= needed else None
    leader = next((peer for peer in status.peers if peer.node == status.leader), None)
    return leader.last_contact_ms / 1000 if leader is not None and leader.last_contact_ms is not None else None
