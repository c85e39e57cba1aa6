"""Which cluster a command talks to: flags before environment before the configuration file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
import yaml

from controlplane.cli.context import (
    ClusterContext,
    Connection,
    Flags,
    config_path,
    endpoint_url,
    read_config,
    save_context,
)
from controlplane.cli.errors import CliError


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    token = tmp_path / "token"
    token.write_text("flk_file\n")
    document = {
        "current": "dev",
        "contexts": {
            "dev": {"endpoints": ["https://dev:1"], "token_file": str(token), "namespace": "from-file"},
            "prod": {"endpoints": ["prod:2", "prod:3"]},
        },
    }
    path = tmp_path / ".config" / "flintlock" / "config.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump(document))
    return {"HOME": str(tmp_path)}


def test_file_is_used_when_nothing_else_speaks(home: dict[str, str]) -> None:
    connection = Connection(Flags(environ=home))
    assert connection.endpoints() == ["https://dev:1"]
    assert connection.token() == "flk_file"
    assert connection.ca_file() is None
    assert connection.namespace == "from-file"


def test_environment_before_file_and_flags_before_environment(home: dict[str, str]) -> None:
    environ = {
        **home,
        "FLINTLOCK_ENDPOINTS": "a:1, https://b:2",
        "FLINTLOCK_TOKEN": "flk_env",
        "FLINTLOCK_NAMESPACE": "env",
    }
    connection = Connection(Flags(environ=environ))
    assert connection.endpoints() == ["https://a:1", "https://b:2"]
    assert connection.token() == "flk_env"
    assert connection.namespace == "env"
    flagged = Connection(Flags(environ=environ, endpoints=("c:3",), token="flk_flag"))
    assert flagged.endpoints() == ["https://c:3"]
    assert flagged.token() == "flk_flag"


def test_context_is_chosen_by_flag_or_environment(home: dict[str, str]) -> None:
    assert Connection(Flags(environ=home, context="prod")).endpoints() == ["https://prod:2", "https://prod:3"]
    chosen = Connection(Flags(environ={**home, "FLINTLOCK_CONTEXT": "prod"}))
    assert chosen.endpoints() == ["https://prod:2", "https://prod:3"]
    assert chosen.namespace == "default"
    with pytest.raises(CliError, match=r"FLINTLOCK_CONTEXT: there is no context 'x' in .*; there are: dev, prod"):
        Connection(Flags(environ={**home, "FLINTLOCK_CONTEXT": "x"})).endpoints()


def test_saved_contexts_leave_others_alone(home: dict[str, str]) -> None:
    path = config_path(home)
    save_context(path, "mine", ClusterContext(endpoints=["https://m:1"]))
    config = read_config(path)
    assert config.current == "dev"
    assert set(config.contexts) == {"dev", "prod", "mine"}
    save_context(path, "dev", None)
    assert read_config(path).current is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_first_context_becomes_the_current_one(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save_context(path, "gone", None)
    assert not path.exists()
    save_context(path, "dev", ClusterContext(endpoints=["https://m:1"]))
    assert read_config(path).current == "dev"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("contexts: [", "line 1"),
        ("contexts: {dev: {endpoint: x}}", "contexts.dev.endpoint"),
        ("contexts: {dev: {namespace: A B}}", "contexts.dev.namespace"),
        ("curent: x", "curent"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(content)
    with pytest.raises(CliError) as caught:
        read_config(path)
    assert caught.value.message.startswith(f"{path}: ")
    assert expected in caught.value.message


@pytest.mark.parametrize("text", ["host", "host:443", "https://host:443/", "[::1]:80", "https://[::1]:80"])
def test_endpoints(text: str) -> None:
    assert endpoint_url(text, "x").startswith("https://")
