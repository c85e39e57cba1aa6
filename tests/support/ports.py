"""Loopback ports that nobody listens on: for each worker of a test run from its own share of the range.

A port is picked, and taken a moment later by a process that starts; it is free again for a moment whenever that process
is restarted. Two workers that picked from one range would now and then pick the same.
"""

from __future__ import annotations

import os

from controlplane.cli.dev import layout

FIRST, LAST = layout._FIRST_PORT, layout._LAST_PORT


def share(worker: int, workers: int) -> tuple[int, int]:
    """The first port of a worker's share, and the first one after it."""
    size = (LAST - FIRST) // workers
    return FIRST + worker * size, FIRST + (worker + 1) * size


def keep_to_own_share() -> None:
    """From now on this process picks from its share, for the local clusters that it lays out as well."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    layout._FIRST_PORT, layout._LAST_PORT = share(worker, workers)


def free_ports(count: int) -> list[int]:
    """`count` different ones."""
    return list(layout.free_ports(count))
