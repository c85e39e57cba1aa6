from __future__ import annotations

from collections.abc import Iterator

import pytest
import structlog
from unit.api.rig import Rig, served


@pytest.fixture(scope="session", autouse=True)
def quiet_server() -> None:
    """A server in a thread also logs between tests, when nobody captures what it prints."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())


@pytest.fixture(scope="session")
def served_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with served(
        tmp_path_factory.mktemp("api"), preview_timeout_s=0.3, write_timeout_s=60.0, heartbeat_s=0.2, watch_queue=64
    ) as rig:
        yield rig


@pytest.fixture
def api(served_api: Rig) -> Rig:
    """A served API with an empty state."""
    served_api.reset()
    return served_api
