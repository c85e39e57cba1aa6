"""During a rotation everybody believes everybody: over real TLS, whichever of the two authorities each side knows."""

from __future__ import annotations

import datetime
import ssl
from contextlib import suppress
from itertools import product
from pathlib import Path

import pytest

from controlplane.identity import issuing
from controlplane.identity.check import check_member
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError, Party

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)
OLD, NEW = issuing.new_issuer("c1", now=NOW), issuing.new_issuer("c1", now=NOW)
CROSSED = OLD.cross(NEW.certificate, now=NOW)
ROOTS = {"old": OLD.certificate, "new": NEW.certificate}


def pem(*names: str) -> bytes:
    return b"".join(issuing.certificate_pem(ROOTS[name]) for name in names)


def context(directory: Path, name: str, root: str, trusts: tuple[str, ...], *, server: bool) -> ssl.SSLContext:
    """Of a member with a certificate of `root`, with what leads from the new root to the old one."""
    key = issuing.new_key()
    issuer, more = (OLD, b"") if root == "old" else (NEW, issuing.certificate_pem(CROSSED))
    certificate = issuer.issue(Party("c1", "node", name), key.public_key(), life=DAY, now=NOW)
    path = directory / f"{name}.pem"
    path.write_bytes(issuing.certificate_pem(certificate) + more + issuing.key_pem(key))
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT
    made.load_verify_locations(cadata=pem(*trusts).decode())
    made.load_cert_chain(path)
    return made


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext) -> None:
    """Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [server.wrap_bio(to_server, to_client, server_side=True), client.wrap_bio(to_client, to_server)]
    for _ in range(8):
        for end in ends:
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    ends[0].write(b"done")
    assert ends[1].read() == b"done"


BEFORE, DURING = ("old", ("old",)), [("old", ("new", "old")), ("new", ("new", "old"))]


@pytest.mark.parametrize(("server", "client"), [*product([BEFORE, *DURING], repeat=2)])
def test_whoever_has_not_heard_of_the_new_one_yet_is_no_stranger(
    tmp_path: Path, server: tuple[str, tuple[str, ...]], client: tuple[str, tuple[str, ...]]
) -> None:
    shake_hands(
        context(tmp_path, "n1", *server, server=True),
        context(tmp_path, "n2", *client, server=False),
    )


def test_who_trusts_the_new_one_alone_takes_nobody_of_the_old_one(tmp_path: Path) -> None:
    server = context(tmp_path, "n1", "new", ("new",), server=True)
    shake_hands(server, context(tmp_path, "n2", "new", ("new",), server=False))
    with pytest.raises(ssl.SSLError):
        shake_hands(server, context(tmp_path, "n3", "old", ("new", "old"), server=False))


def test_only_an_authority_of_the_same_cluster_is_crossed() -> None:
    with pytest.raises(IdentityError, match="none of this cluster"):
        OLD.cross(issuing.new_issuer("c2", now=NOW).certificate, now=NOW)


def test_the_certificate_that_is_crossed_ends_with_who_signed_it() -> None:
    assert CROSSED.not_valid_after_utc == OLD.certificate.not_valid_after_utc


def test_files_with_a_crossed_certificate_are_fine(tmp_path: Path) -> None:
    key = issuing.new_key()
    leaf = NEW.issue(Party("c1", "node", "n1"), key.public_key(), life=DAY, now=NOW)
    files = TlsFiles(ca=tmp_path / "ca.crt", certificate=tmp_path / "n1.crt", key=tmp_path / "n1.key")
    files.ca.write_bytes(pem("new", "old"))
    files.certificate.write_bytes(issuing.certificate_pem(leaf) + issuing.certificate_pem(CROSSED))
    files.key.write_bytes(issuing.key_pem(key))
    assert check_member(files, NOW, kind="node", name="n1", cluster="c1") == []
