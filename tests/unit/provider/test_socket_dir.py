"""The socket's directory is private, short enough, and does not outlive its provider for long."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from provider_shim.protocol.socket_dir import SocketDirectory, remove_stale


def age(path: Path) -> None:
    an_hour_ago = time.time() - 3600
    os.utime(path, (an_hour_ago, an_hour_ago))


def test_it_is_private_and_goes_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGIN_UNIX_SOCKET_DIR", str(tmp_path))
    made = SocketDirectory()
    assert made.path.parent == tmp_path
    assert made.path.stat().st_mode & 0o777 == 0o700
    made.remove()
    assert list(tmp_path.iterdir()) == []


def test_a_long_path_is_avoided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    monkeypatch.setenv("PLUGIN_UNIX_SOCKET_DIR", str(deep))
    made = SocketDirectory()
    assert len(str(made.socket)) <= 107
    assert list(deep.iterdir()) == []
    made.remove()


def test_only_what_a_killed_provider_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGIN_UNIX_SOCKET_DIR", str(tmp_path))
    alive = SocketDirectory()
    killed, fresh, foreign = (tmp_path / f"flintlock-{name}" for name in ("killed", "fresh", "foreign"))
    for path in (killed, fresh, foreign):
        path.mkdir(mode=0o700)
    (killed / "s").touch()
    (foreign / "something-else").touch()
    (tmp_path / "flintlock-link").symlink_to(tmp_path)
    for path in (alive.path, killed, foreign):
        age(path)
    remove_stale(tmp_path)
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(
        [alive.path.name, "flintlock-foreign", "flintlock-fresh", "flintlock-link"]
    )
    alive.remove()
