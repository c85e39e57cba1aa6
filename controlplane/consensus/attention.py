"""A leader whose fronts are gone or hang lets another node lead: only a leader's front grants leases to hosts.

A front asks for the status several times a second. Once none has asked for `patience_s`, the leadership is handed over
like before a planned stop; whoever leads then may be no better off, so it is not tried again for a while. What this
process itself was late by says nothing about fronts. Pure bookkeeping; `server` listens and acts.
"""

from __future__ import annotations

FIRST_S = 20.0
"""How long the first front of this process may take to come."""
RETRY_S = 10.0
PERIOD_S = 0.5
STALLED_S = 1.0


class Attention:
    """When a front was heard last. Times are monotonic seconds."""

    def __init__(self, patience_s: float, now_s: float) -> None:
        self._patience_s = patience_s
        self._heard_s = now_s + FIRST_S
        self._looked_s = now_s

    def heard(self, now_s: float) -> None:
        self._heard_s = now_s

    def look(self, now_s: float) -> bool:
        """To be called every `PERIOD_S`: whether this node, if it leads, should hand over now."""
        late = now_s - self._looked_s > PERIOD_S + STALLED_S
        self._looked_s = now_s
        if late:
            self._heard_s = max(self._heard_s, now_s)
        if now_s - self._heard_s <= self._patience_s:
            return False
        self._heard_s = now_s - self._patience_s + RETRY_S
        return True
