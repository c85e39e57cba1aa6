"""A node whose own certificate is of no use says so at its start, instead of being refused by every peer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from unit.consensus.support import Authority, ListState, peer_settings

from controlplane.consensus import RaftNode
from controlplane.consensus.errors import CertificateError


@pytest.mark.parametrize(
    ("days", "from_days", "message"),
    [(-1.0, -30.0, "CN=n1 expired at"), (30.0, 1.0, "CN=n1 is not valid before")],
)
async def test_a_certificate_out_of_date_is_refused_before_anything_is_written(
    tmp_path: Path, days: float, from_days: float, message: str
) -> None:
    authority = Authority(tmp_path / "ca")
    settings = peer_settings(tmp_path, authority, ["n1", "n2"])["n1"]
    settings = replace(settings, tls=authority.issue("n1", days=days, from_days=from_days))
    with pytest.raises(CertificateError, match=message):
        await RaftNode(settings, ListState()).start()
    assert not settings.data_dir.exists()


async def test_a_valid_certificate_is_none_of_its_business(tmp_path: Path) -> None:
    node = RaftNode(peer_settings(tmp_path, Authority(tmp_path / "ca"), ["n1", "n2"])["n1"], ListState())
    await node.start()
    await node.stop()
