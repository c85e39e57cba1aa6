"""Fixtures that several folders of tests share, and what keeps workers of one run apart."""

from __future__ import annotations

from support import ports

pytest_plugins = ["support.cluster"]


def pytest_configure() -> None:
    ports.keep_to_own_share()
