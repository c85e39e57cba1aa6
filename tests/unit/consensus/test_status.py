"""The figures an operator sees of a member are true ones."""

from __future__ import annotations

from pathlib import Path

from unit.consensus.support import ListState, peer_settings, until

from controlplane.consensus import RaftNode, RaftSettings
from controlplane.consensus.latency import WINDOW, LatencyWindow
from controlplane.ports import Latency

TIMEOUT_S = 10.0


def test_a_window_sums_up_its_last_samples_only() -> None:
    window = LatencyWindow()
    assert window.summary() == Latency()
    window.note(9.0)
    for i in range(WINDOW):
        window.note(i / 1000)
    assert window.summary() == Latency(WINDOW, 512.0, 1013.0, 1023.0)


async def test_a_leader_alone_reports_its_disk_its_log_and_its_snapshot(tmp_path: Path) -> None:
    settings = RaftSettings(node="n1", cluster_id="c", data_dir=tmp_path, snapshot_entries=50, retain_entries=10)
    node = RaftNode(settings, ListState())
    assert (await node.status()).uptime_s == 0
    await node.start()
    for _ in range(30):
        await node.append(b"x", timeout_s=TIMEOUT_S)
    status = await node.status()
    assert status.fsync_latency.samples >= 30
    assert 0 < status.fsync_latency.p50_ms <= status.fsync_latency.p99_ms <= status.fsync_latency.max_ms
    assert (status.log_entries, status.snapshot_age_s) == (status.last_index - 1, None)
    assert 0 < status.uptime_s < 60
    for _ in range(30):
        await node.append(b"x", timeout_s=TIMEOUT_S)

    async def taken() -> bool:
        return (await node.status()).snapshot_age_s is not None

    await until(taken, "a snapshot")
    assert (await node.status()).log_entries < 30
    await node.stop()
    node = RaftNode(settings, ListState())
    await node.start()
    again = (await node.status()).snapshot_age_s
    assert again is not None
    assert 0 <= again < 60
    await node.stop()


async def test_without_syncs_there_is_no_latency_to_report(tmp_path: Path) -> None:
    node = RaftNode(RaftSettings(node="n1", cluster_id="c", data_dir=tmp_path, fsync="never"), ListState())
    await node.start()
    await node.append(b"x", timeout_s=TIMEOUT_S)
    status = await node.status()
    assert (status.fsync, status.fsync_latency) == ("never", Latency())
    await node.stop()


async def test_the_leader_knows_how_far_each_peer_is_behind(tmp_path: Path) -> None:
    settings = peer_settings(tmp_path, None, ["n1", "n2", "n3"])
    nodes = {name: RaftNode(settings[name], ListState()) for name in ("n1", "n2")}
    for node in nodes.values():
        await node.start()
    for _ in range(5):
        await nodes["n1"].append(b"x", timeout_s=TIMEOUT_S)

    async def settled() -> bool:
        statuses = [await node.status() for node in nodes.values()]
        lags = [peer.lag_entries for status in statuses for peer in status.peers if status.role == "leader"]
        return sorted(lags, key=lambda lag: lag or 0) == [0, statuses[0].last_index]

    await until(settled, "one peer is level, the absent one lacks everything")
    for node in nodes.values():
        status = await node.status()
        assert all(peer.lag_entries is None for peer in status.peers) == (status.role != "leader")
        absent = next(peer for peer in status.peers if peer.node == "n3")
        assert (absent.connected, absent.last_contact_ms) == (False, None)
        await node.stop()
