"""flintctl snapshot against a served API and real directories: everything but a whole cluster."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from unit.api.rig import Rig

from controlplane.cli.dev import layout as layouts
from controlplane.cli.dev import setup
from controlplane.cli.dev.layout import Layout
from controlplane.identity.authority import Authority

Cli = Callable[..., Any]


@pytest.fixture
def saved(cli: Cli, api: Rig, tmp_path: Path) -> Path:
    """A directory with one snapshot of a state with something in it."""
    api.with_host()
    api.active("web")
    answer = cli("snapshot", "save", "backups")
    assert answer.code == 0, answer.err
    return tmp_path / "backups"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of n1 in the cluster `test`, which the served API pretends to be."""
    plan = layouts.plan(cluster_id="test", driver="simulated", nodes=3, hosts=0, vcpu=1, memory_in_mb=64)
    layout = Layout(tmp_path / "node", plan)
    Authority.create(layout.authority, cluster_id="test").issue_node("n1", layout.pki("n1"))
    layout.tokens_file.write_text('{"tokens": []}')
    path = tmp_path / "n1.yaml"
    path.write_text(yaml.safe_dump(setup.node_settings(layout, plan.nodes[0])))
    return path


def documents(cli: Cli, *arguments: str) -> Any:
    answer = cli(*arguments, "-o", "json")
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_save_list_inspect_verify(cli: Cli, api: Rig, saved: Path) -> None:
    (listed,) = documents(cli, "snapshot", "list", "backups")["items"]
    assert listed["cluster_id"] == "test"
    inspected = documents(cli, "snapshot", "inspect", "backups")
    assert inspected["snapshot"] == listed["snapshot"]
    assert (inspected["revision"], inspected["state_digest"]) == (api.replica.state.revision, api.digest)
    assert inspected["counts"]["microvms"] == inspected["counts"]["hosts"] == 1
    assert [member["node"] for member in inspected["members"]] == ["n1"]
    (verified,) = documents(cli, "snapshot", "verify", "backups")["items"]
    assert (verified["verified"], verified["digest"]) == (True, api.digest)
    shown = cli("snapshot", "inspect", "backups").out
    assert "Cluster:       test (incarnation 1)" in shown
    assert "1 microvms" in shown
    assert api.snapshots.held == {}.keys(), "it was released"


def test_only_what_changed_is_sent_again(cli: Cli, api: Rig, saved: Path) -> None:
    assert documents(cli, "snapshot", "save", "backups")["uploaded_chunks"] == 0
    api.put_vm("other")
    again = documents(cli, "snapshot", "save", "backups")
    assert 0 < again["uploaded_chunks"] < again["chunks"]
    assert len({item["index"] for item in documents(cli, "snapshot", "list", "backups")["items"]}) == 2


def test_an_archive_is_one_file(cli: Cli, api: Rig, tmp_path: Path) -> None:
    api.with_host()
    assert cli("snapshot", "save", "today.flsnap").code == 0
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".flsnap"] == ["today.flsnap"]
    assert documents(cli, "snapshot", "verify", "today.flsnap")["items"][0]["digest"] == api.digest
    again = cli("snapshot", "save", "today.flsnap")
    assert (again.code, "exists already" in again.err) == (1, True)


@pytest.mark.parametrize("damage", ["chunk", "manifest", "missing", "swapped"])
def test_verify_trusts_nothing(cli: Cli, api: Rig, saved: Path, damage: str) -> None:
    chunks = sorted((saved / "chunks").glob("*/*"))
    if damage == "chunk":
        raw = bytearray(chunks[0].read_bytes())
        raw[len(raw) // 2] ^= 1
        chunks[0].write_bytes(raw)
    elif damage == "missing":
        chunks[0].unlink()
    elif damage == "swapped":
        one, other = chunks[0].read_bytes(), chunks[1].read_bytes()
        chunks[0].write_bytes(other)
        chunks[1].write_bytes(one)
    else:
        manifest = next((saved / "snapshots").glob("*/*"))
        raw = bytearray(manifest.read_bytes())
        raw[-1] ^= 1
        manifest.write_bytes(raw)
    answer = cli("snapshot", "verify", "backups")
    assert (answer.code, answer.out) == (1, "")
    assert ("[not_found]" if damage == "missing" else "[damaged]") in answer.err


def test_keep_removes_older_ones(cli: Cli, api: Rig, saved: Path) -> None:
    for number in range(3):
        api.put_vm(f"vm-{number}")
        assert cli("snapshot", "save", "backups", "--keep", "2").code == 0
    assert len(documents(cli, "snapshot", "list", "backups")["items"]) == 2
    for path in (saved / "chunks").glob("*/*"):
        os.utime(path, (1, 1))
    answer = cli("snapshot", "prune", "backups", "--keep", "1", "--dry-run")
    assert answer.out.startswith("1 snapshots and")
    assert "would go" in answer.out
    assert len(documents(cli, "snapshot", "list", "backups")["items"]) == 2
    assert cli("snapshot", "prune", "backups", "--keep", "1").code == 0
    assert documents(cli, "snapshot", "verify", "backups", "--all")["items"][0]["digest"] == api.digest


def test_restore(cli: Cli, api: Rig, saved: Path, config: Path, tmp_path: Path) -> None:
    data = tmp_path / "node" / "n1" / "raft"
    dry = cli("snapshot", "restore", "backups", "--config", str(config), "--dry-run")
    assert (dry.code, data.exists()) == (0, False), dry.err
    assert "Incarnation:  2 (the snapshot's is 1)" in dry.out
    assert "The snapshot is whole. Nothing was written" in dry.out
    done = cli("snapshot", "restore", "backups", "--config", str(config))
    assert done.code == 0, done.err
    assert "Do the same for n2, n3, then start all of them." in done.out
    assert (data / "identity.json").exists()
    again = cli("snapshot", "restore", "backups", "--config", str(config))
    assert (again.code, "is not empty" in again.err) == (1, True)
    assert f"mv {data} {data}.old" in again.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("save", "gs://x"), "'gs://x' is no place for snapshots"),
        (("save", "s3://bucket/x"), "no S3 credential was given"),
        (("list", "s3://B/x"), "no S3 credential was given"),
        (("inspect", "nothing-here"), "there is no snapshot"),
        (("verify", "nothing-here.flsnap"), "there is no snapshot"),
        (("inspect", "backups", "9999"), "no snapshots are called '9999'"),
        (("inspect", "backups", "--cluster", "other"), "there is no snapshot of cluster other"),
        (("restore", "backups", "--config", "nowhere.yaml"), "nowhere.yaml: cannot be read"),
        (("restore", "backups", "--config", "n1.yaml", "--incarnation", "1"), "incarnation: must be at least 2"),
        (("prune", "today.flsnap", "--keep", "1"), "holds one snapshot"),
    ],
)
def test_refusals(cli: Cli, saved: Path, config: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = cli("snapshot", *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert said in answer.err, answer.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("save",), "LOCATION"),
        (("prune", "backups"), "--keep"),
        (("prune", "backups", "--keep", "0"), "--keep"),
        (("restore", "backups"), "--config"),
        (("save", "backups", "--timeout", "0"), "--timeout"),
    ],
)
def test_wrong_command_line(cli: Cli, arguments: tuple[str, ...], said: str) -> None:
    answer = cli("snapshot", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert said in " ".join(answer.err.split())


def test_a_node_that_goes_away_is_replaced_by_another(cli: Cli, api: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    api.with_host()
    monkeypatch.setenv("FLINTLOCK_ENDPOINTS", f"https://127.0.0.1:1,{os.environ['FLINTLOCK_ENDPOINTS']}")
    answer = cli("snapshot", "save", "backups")
    assert answer.code == 0, answer.err
    assert "going on with another snapshot" in answer.err


def test_without_a_leader_nothing_is_saved(cli: Cli, api: Rig, tmp_path: Path) -> None:
    api.replica.leaderless = True
    answer = cli("snapshot", "save", "backups", "--timeout", "1")
    assert answer.code == 1
    assert "[503 no_leader]" in answer.err
    assert not (tmp_path / "backups").exists() or not list((tmp_path / "backups").glob("snapshots/*/*"))
