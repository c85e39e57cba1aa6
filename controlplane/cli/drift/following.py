"""What is new about drift since somebody was told. Pure.

By level, not by edge: each look reads everything, and what is told is the difference to what was told last. So nothing
has to be queued while a receiver is away. When it is back, it hears of what is so by then; what appeared and ended in
between is never told.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum

from controlplane.cli.drift.report import Finding, Report
from controlplane.cli.values import Json

LIMIT = 1_000
"""Findings in one notice."""


class What(StrEnum):
    APPEARED = "appeared"
    """There was no drift that was told of."""
    CHANGED = "changed"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Notice:
    id: str
    """Stays the same while it is tried again, so that a receiver knows what it has had."""
    what: What
    report: Report

    def document(self) -> Json:
        findings = self.report.failing
        return {
            "version": 1,
            "id": self.id,
            "what": self.what.value,
            "revision": self.report.revision,
            "count": len(findings),
            "findings": [_plain(each) for each in findings[:LIMIT]],
        }


@dataclass(slots=True)
class Follower:
    new_id: Callable[[], str] = field(default=lambda: uuid.uuid4().hex)
    _told: frozenset[str] = frozenset()
    _pending: tuple[frozenset[str], str] | None = None

    def look(self, report: Report) -> Notice | None:
        """What is to be told after this look; the same again until `told`."""
        now = _fingerprints(report)
        if now == self._told:
            self._pending = None
            return None
        if self._pending is None or self._pending[0] != now:
            self._pending = (now, self.new_id())
        what = What.APPEARED if not self._told else What.CHANGED if now else What.ENDED
        return Notice(self._pending[1], what, report)

    def told(self, notice: Notice) -> None:
        """It was delivered."""
        self._told = _fingerprints(notice.report)
        self._pending = None


def _fingerprints(report: Report) -> frozenset[str]:
    return frozenset(
        finding.fingerprint(difference) for finding in report.failing for difference in finding.differences or (None,)
    )


def _plain(finding: Finding) -> Json:
    return {
        "class": finding.klass.value,
        "resource": finding.resource,
        "identity": finding.identity,
        "host": finding.host,
        "fields": [
            {
                "pointer": each.pointer,
                "desired": each.desired,
                "observed": each.observed,
                "since": each.since,
                "cause": each.cause,
            }
            for each in finding.differences
        ],
    }
