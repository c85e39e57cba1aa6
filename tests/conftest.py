"""Fixtures that several folders of tests share, and what lets several workers run them at once."""

from __future__ import annotations

import pytest
from hypothesis import settings
from support import arrangement, ports

pytest_plugins = ["support.cluster", "support.terraforms"]
# These assert for the tests, and have to say as much as those when they fail.
pytest.register_assert_rewrite("acceptance.terraform.checks", "acceptance.terraform.steps")

# How long an example takes says more of the machine than of the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_configure() -> None:
    ports.keep_to_own_share()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    arrangement.arrange(items, by_group=getattr(config.option, "loadgroup", False))
