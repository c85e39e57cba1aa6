"""Fixtures that several folders of tests share, and what lets several workers run them at once."""

from __future__ import annotations

import pytest
from support import arrangement, ports

pytest_plugins = ["support.cluster"]


def pytest_configure() -> None:
    ports.keep_to_own_share()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    arrangement.arrange(items, by_group=getattr(config.option, "loadgroup", False))
