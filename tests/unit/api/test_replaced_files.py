"""An operator's own authority is replaced by another one while the API serves: files alone, and nobody restarts it."""

from __future__ import annotations

import shutil
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from unit.api.rig import TOKEN, Rig, served

from controlplane.identity.authority import Authority


@pytest.fixture
def mine(tmp_path: Path) -> Iterator[Rig]:
    """An API of its own: its certificate is about to change."""
    with served(tmp_path) as rig:
        yield rig


def status(rig: Rig, ca: Path) -> int:
    """Of a request over a connection of its own by who trusts `ca`. Raises requests.exceptions.SSLError."""
    headers = {"Authorization": f"Bearer {TOKEN}"}
    return requests.get(rig.url("/namespaces"), headers=headers, verify=str(ca), timeout=10).status_code


def test_connections_go_on_and_new_ones_are_of_the_new_authority(mine: Rig, tmp_path: Path) -> None:
    first, second = tmp_path / "ca" / "ca.crt", Authority.create(tmp_path / "second", cluster_id="test")
    both = tmp_path / "both.crt"
    both.write_bytes(second.certificate_path.read_bytes() + first.read_bytes())
    assert mine.get("/namespaces").status_code == 200
    there, issued = tmp_path / "n1", second.issue_node("n1", tmp_path / "issued")

    # The key alone, as between two copies: what is in use stays in use.
    shutil.copy(issued.key, there / "n1.key")
    with pytest.raises(ssl.SSLError):
        mine.server.reload_tls()
    assert status(mine, first) == 200

    shutil.copy(issued.certificate, there / "n1.crt")
    mine.server.reload_tls()
    assert mine.get("/namespaces").status_code == 200, "the connection of before"
    assert [status(mine, each) for each in (both, second.certificate_path)] == [200, 200]
    with pytest.raises(requests.exceptions.SSLError):
        status(mine, first)
