"""What one leader remembers of its hosts' leases: when it granted last, and whom it grants nothing any more. Pure.

It lives in the memory of one front and is worth nothing to another one: whatever was granted before `since_s`, by this
front or by others, is not in it, so no wait counts from any earlier. Times are seconds of this process's monotonic
clock. That one stands still while the machine is suspended, which makes waits longer and never shorter.
"""

from __future__ import annotations

from collections.abc import Iterable

from controlplane.model.resources import Host, HostPhase

LEASED = (HostPhase.READY, HostPhase.SUSPECT)
"""The phases in which a host may have a lease."""


class Ledger:
    def __init__(self) -> None:
        self.term: int | None = None
        """The term in which this node leads and counts."""
        self.since_s = 0.0
        """When the counting began, or began again."""
        self._counted: int | None = None
        self._granted: dict[str, float] = {}
        self._heard: dict[str, float] = {}
        self._entered: dict[str, tuple[HostPhase | None, float]] = {}
        self._detaching: dict[str, str | None] = {}

    def begin(self, term: int | None, now_s: float) -> None:
        """This node leads in `term` from now on, or in none."""
        if term is not None and term != self._counted:
            # Proof that this node leads comes with everything of earlier terms applied, and what they decided about
            # hosts is refused in this one: nothing can be under way.
            self._counted = term
            for table in (self._granted, self._heard, self._entered, self._detaching):
                table.clear()
        self.term = term
        self.since_s = now_s

    def restart(self, now_s: float) -> None:
        """What should have been heard until now may have been missed."""
        self.since_s = now_s

    def look(self, hosts: Iterable[Host], now_s: float) -> None:
        """Note who began to be waited for: a host that has just come into its present state has not been silent yet."""
        before, self._entered = self._entered, {}
        for host in hosts:
            kind = HostPhase.READY if host.phase in LEASED else host.phase
            was = before.get(host.meta.name)
            self._entered[host.meta.name] = was if was is not None and was[0] is kind else (kind, now_s)

    # -- grants --------------------------------------------------------------------------------------------------------

    def grant(self, host: str, now_s: float) -> None:
        self._granted[host] = now_s

    def hear(self, host: str, now_s: float) -> None:
        """A heartbeat of the host's present session came, whether it may have a lease or not."""
        self._heard[host] = now_s

    def detach(self, host: str, session: str | None) -> None:
        """Grant nothing more to this session: it is about to be detached, and whether that came true may stay unknown.

        Another session of the host is not meant: that the state shows one is proof that this one cannot be detached
        any more, or was.
        """
        self._detaching[host] = session

    def is_detaching(self, host: Host) -> bool:
        name = host.meta.name
        return name in self._detaching and self._detaching[name] == host.session

    # -- waits ---------------------------------------------------------------------------------------------------------

    def counted_s(self, now_s: float) -> float:
        """How long nothing was missed: whatever was granted before was granted longer ago."""
        return now_s - self.since_s

    def granted_lately(self, host: str, now_s: float, within_s: float) -> bool:
        granted_s = self._granted.get(host)
        return granted_s is not None and now_s - granted_s <= within_s

    def ungranted_s(self, host: str, now_s: float) -> float:
        """How long ago the host's last lease was granted at the latest, by whomever."""
        return now_s - max(self.since_s, self._granted.get(host, self.since_s))

    def silent_s(self, host: Host, now_s: float) -> float:
        """How long the host, as of the last look, has been without what it is waited for: a grant, or a heartbeat where
        it may have no lease."""
        name = host.meta.name
        last = (self._granted if host.phase in LEASED else self._heard).get(name, self.since_s)
        _, entered_s = self._entered.get(name, (None, now_s))
        return now_s - max(self.since_s, entered_s, last)
