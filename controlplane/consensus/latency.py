"""How long something took lately: a bounded window of samples, summed up when somebody asks.

Noting a sample costs a clock reading and a store; sorting is left to the reader, who comes a few times a second.
"""

from __future__ import annotations

from controlplane.ports import Latency

WINDOW = 1024


class LatencyWindow:
    """The last `WINDOW` durations, in seconds."""

    def __init__(self) -> None:
        self._samples: list[float] = []
        self._next = 0
        self._summary: Latency | None = Latency()
        """Of the samples as they are; None when it was not asked for yet."""

    def note(self, duration_s: float) -> None:
        self._summary = None
        if len(self._samples) < WINDOW:
            self._samples.append(duration_s)
            return
        self._samples[self._next] = duration_s
        self._next = (self._next + 1) % WINDOW

    def summary(self) -> Latency:
        """Percentiles by nearest rank; zeros without a sample."""
        if self._summary is None:
            self._summary = self._sum_up()
        return self._summary

    def _sum_up(self) -> Latency:
        ranked = sorted(self._samples)
        last = len(ranked) - 1
        p50, p99, worst = (round(ranked[round(last * part)] * 1000, 3) for part in (0.5, 0.99, 1.0))
        return Latency(len(ranked), p50, p99, worst)
