from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import structlog
from unit.api.rig import TOKEN, Rig, served

from controlplane.cli import main


@dataclass
class Answer:
    code: int
    out: str
    err: str


Cli = Callable[..., Answer]


@pytest.fixture(autouse=True)
def quiet_server() -> Iterator[None]:
    """The API is served by this process; its log must not mix with what flintctl prints."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def served_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Rig, Path]]:
    directory = tmp_path_factory.mktemp("api")
    with served(directory, heartbeat_s=0.2, preview_timeout_s=0.2) as rig:
        yield rig, directory / "ca" / "ca.crt"


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Cli:
    """flintctl with an empty home and environment."""
    for name in (
        "ENDPOINTS",
        "TOKEN",
        "CA_FILE",
        "NAMESPACE",
        "CONFIG",
        "CONTEXT",
        "IMAGES",
        "DEV_DIR",
        "DEBUG",
        "TOKEN_FILE",
        "OIDC_TOKEN",
        "OIDC_TOKEN_FILE",
    ):
        monkeypatch.delenv(f"FLINTLOCK_{name}", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Answer:
        capsys.readouterr()
        code = main.run(arguments)
        captured = capsys.readouterr()
        return Answer(code, captured.out, captured.err)

    return run


@pytest.fixture
def api(served_api: tuple[Rig, Path]) -> Rig:
    """A served API with an empty state."""
    served_api[0].reset()
    return served_api[0]


@pytest.fixture
def cli(bare: Cli, api: Rig, served_api: tuple[Rig, Path], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """flintctl with an environment that names the served API."""
    monkeypatch.setenv("FLINTLOCK_ENDPOINTS", api.url("//").rstrip("/"))
    monkeypatch.setenv("FLINTLOCK_TOKEN", TOKEN)
    monkeypatch.setenv("FLINTLOCK_CA_FILE", str(served_api[1]))
    return bare
