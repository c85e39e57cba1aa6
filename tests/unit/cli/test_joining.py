"""flintctl init, join and node certify: what they write, and that they replace nothing and use nothing up in vain."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path
from typing import Any

import pytest
from unit.cli.conftest import Cli

from controlplane import settings
from controlplane.identity import issuing, join_tokens, renewing
from controlplane.issuance.founding import AuthorityFile
from controlplane.sealing import KeyRing
from controlplane.settings import SettingsError

INIT = ["init", "--node", "n1", "--cluster-id", "prod"]
SERVERS = ["--raft", "127.0.0.1:7101", "--gateway", "127.0.0.1:7201", "--http", "n1.example:7301"]


def made(cli: Cli, directory: Path, *more: str) -> Path:
    answer = cli(*INIT, *SERVERS, "--dir", str(directory), *more)
    assert answer.code == 0, answer.err
    return directory


def test_a_founded_node_is_ready_to_run_and_its_secrets_are_its_owners(bare: Cli, tmp_path: Path) -> None:
    there = made(bare, tmp_path / "n1")
    node = settings.load_node(there / "n1.yaml")
    assert (node.node, node.cluster_id, node.raft.join) == ("n1", "prod", False)
    assert node.authority is not None
    issuer = AuthorityFile.load(node.authority.file).issuer(KeyRing.load(node.authority.keys_file))
    assert issuing.certificate_pem(issuer.certificate) == (there / "ca.crt").read_bytes()
    for secret in ("n1.key", "sealing-keys.json", "authority.json", "token", "tokens.json", "n1.yaml"):
        assert stat.S_IMODE((there / secret).stat().st_mode) == 0o600, secret
    assert stat.S_IMODE(there.stat().st_mode) == 0o700
    assert b"PRIVATE KEY" not in (there / "authority.json").read_bytes()


def test_nothing_is_replaced(bare: Cli, tmp_path: Path) -> None:
    there = made(bare, tmp_path / "n1")
    before = {path.name: path.read_bytes() for path in there.iterdir()}
    again = bare(*INIT, *SERVERS, "--dir", str(there))
    assert again.code == 1
    assert "n1.yaml exists already and is not replaced" in again.err
    token = join_tokens.new("01M8CDZSEH6FDV1DGNJZ7JQKR0", "ab" * 32).text
    host = bare("join", "--server", "127.0.0.1:1", "--host", "h1", "--dir", str(there), "--token", token)
    assert "ca.crt exists already" in host.err, "found before the token is shown to anybody"
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before


def test_an_expired_node_is_refused_at_start_and_certified_from_its_own_files(bare: Cli, tmp_path: Path) -> None:
    there = made(bare, tmp_path / "n1")
    node = settings.load_node(there / "n1.yaml")
    assert node.authority is not None
    issuer = AuthorityFile.load(node.authority.file).issuer(KeyRing.load(node.authority.keys_file))
    long_ago = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=9)
    old = issuer.issue(
        renewing.party_from_certificate(renewing.load(node.tls)),
        issuing.requested_key(renewing.request(node.tls)),
        life=datetime.timedelta(days=1),
        now=long_ago,
    )
    node.tls.certificate.write_bytes(issuing.certificate_pem(old))
    with pytest.raises(SettingsError, match=r"tls\.certificate: .*n1\.crt: the certificate of CN=n1 expired at"):
        settings.load_node(there / "n1.yaml")
    answer = bare("node", "certify", "--config", str(there / "n1.yaml"))
    assert answer.code == 0, answer.err
    assert "Node n1 has a certificate until" in answer.out
    settings.load_node(there / "n1.yaml")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([*INIT, *SERVERS, "--host-life", "1 day"], "is not a duration such as"),
        (["init", "--node", "N1", "--cluster-id", "prod", *SERVERS], "is not lower-case letters"),
        ([*INIT, "--raft", "nowhere", "--gateway", "a:1", "--http", "a:2"], "must be HOST:PORT"),
        (["join", "--server", "a:1", "--host", "h1", "--token", "flj_x"], "not a join token"),
        (["join", "--server", "a:1", "--host", "h1", "--node", "n2", "--token", "x"], "give exactly one of them"),
        (["join", "--server", "a:1", "--host", "h1"], "is required, or FLINTLOCK_JOIN_TOKEN"),
        (["token", "create", "--role", "root"], "is not one of host, node"),
        (["token", "create", "--role", "node", "--host", "h1"], "does not go with --role node"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(
    bare: Cli, tmp_path: Path, arguments: list[str], says: str
) -> None:
    where: list[Any] = [] if arguments[0] == "token" else ["--dir", str(tmp_path / "new")]
    answer = bare(*arguments, *where)
    assert answer.code in (1, 2)
    assert says in " ".join(answer.err.split()), answer.err
    assert not (tmp_path / "new").exists()
