"""How long a session may go without a grant before another node is tried. Pure.

A node may acknowledge heartbeats and yet have no way to the leader; the agent then has to find another node while its
lease lasts. But a host may also be without grants because none is due: it is not declared yet, it rejoins, or nobody
leads. Going from node to node would not help then, and thousands of hosts that do so would hurt.

A node tells when there is no leader, for it or for others (`tells_leaderless`). As long as it does, no grant is
waited for; and as it takes a moment to find out, it is given TELLING times as long. Every session has some jitter, so
that what many agents meet at once does not make all of them change node at once.

So the session itself shows whether grants are due. One that has had grants is left `grantless_s` after the last. One
that has had none yet is given FIRST times as long, for a host that rejoins has orders to carry out first. One whose
node says that the host is not declared is not left at all until it has had a grant. Whenever a session is left for
want of grants, all of these times double, up to LIMIT times; they are as before once grants came steadily for CALM
times `grantless_s`.
"""

from __future__ import annotations

FIRST = 5.0
TELLING = 1.5
JITTER = 0.3
"""At most so much longer."""
LIMIT = 64.0
CALM = 15.0


class Patience:
    def __init__(self, grantless_s: float) -> None:
        self._grantless_s = grantless_s
        self._factor = 1.0
        self._admitted = False
        self._began_s = 0.0
        self._granted_s: float | None = None
        self._excused_s = 0.0
        self._steady_s = 0.0
        self._longer = 1.0

    def begin(self, now_s: float, *, admitted: bool, tells: bool = False, chance: float = 0.0) -> None:
        """A session was welcomed by a node that `tells` whether it has a leader. `chance` is between 0 and 1."""
        self._admitted, self._began_s, self._granted_s = admitted, now_s, None
        self._excused_s = now_s
        self._longer = (TELLING if tells else 1.0) * (1 + JITTER * chance)

    def excused(self, now_s: float) -> None:
        """There is no leader, for no node: it is nobody's fault that nothing is granted."""
        self._excused_s = now_s

    def granted(self, now_s: float) -> None:
        if self._granted_s is None or now_s - self._granted_s > self._grantless_s:
            self._steady_s = now_s
        self._granted_s = now_s
        if now_s - self._steady_s >= CALM * self._grantless_s:
            self._factor = 1.0

    def left_s(self, now_s: float) -> float | None:
        """Seconds until the session is to be left, 0 or less when it is; None while no grant is due."""
        usual_s = self._grantless_s * self._factor * self._longer
        if self._granted_s is not None:
            return max(self._granted_s, self._excused_s) + usual_s - now_s
        if not self._admitted:
            return None
        return max(self._began_s, self._excused_s) + usual_s * FIRST - now_s

    def gave_up(self) -> None:
        """The session is left for want of grants."""
        self._factor = min(self._factor * 2, LIMIT)
