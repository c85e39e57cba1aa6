"""Tokens are known by their digests alone, and the file is followed while the process runs."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from controlplane.identity.names import IdentityError
from controlplane.identity.principal import Principal
from controlplane.identity.tokens import TokenAuthenticator, entry_for, new_token, write_tokens


def test_token_names_its_principal_and_the_file_does_not_hold_it(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    operator, viewer = new_token(), new_token()
    entries = [
        entry_for(operator, name="operator", roles=["admin"]),
        entry_for(viewer, name="viewer", roles=["read", "metrics"]),
    ]
    write_tokens(path, entries)
    authenticator = TokenAuthenticator.from_file(path)
    assert authenticator.authenticate(operator) == Principal("operator", frozenset({"admin"}), token="operator")
    assert authenticator.authenticate(viewer) == Principal("viewer", frozenset({"read", "metrics"}), token="viewer")
    assert operator not in path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("bearer", ["", "wrong", "x" * 100_000, "flk_", "\x00", "żółw"])
def test_anything_else_is_nobody(tmp_path: Path, bearer: str) -> None:
    path = tmp_path / "tokens.json"
    write_tokens(path, [entry_for(new_token(), name="operator", roles=["admin"])])
    assert TokenAuthenticator.from_file(path).authenticate(bearer) is None


def test_revoked_and_added_tokens_take_effect_without_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    first, second = new_token(), new_token()
    write_tokens(path, [entry_for(first, name="first", roles=[])])
    authenticator = TokenAuthenticator.from_file(path)
    assert authenticator.authenticate(second) is None
    write_tokens(path, [entry_for(second, name="second", roles=[])])
    assert authenticator.authenticate(first) is None
    assert authenticator.authenticate(second) == Principal("second", token="second")


def test_file_damaged_while_running_keeps_the_last_good_tokens(tmp_path: Path) -> None:
    path = tmp_path / "tokens.json"
    token = new_token()
    write_tokens(path, [entry_for(token, name="operator", roles=["admin"])])
    authenticator = TokenAuthenticator.from_file(path)
    path.write_text("{")
    assert authenticator.authenticate(token) is not None
    path.unlink()
    assert authenticator.authenticate(token) is not None


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        ('{"version": 2, "tokens": []}', "/version"),
        ('{"version": 1}', "/tokens"),
        ('{"version": 1, "tokens": [], "token": 1}', "/token"),
        (json.dumps({"version": 1, "tokens": [{"name": "x", "roles": [], "sha256": "short"}]}), "/tokens/0/sha256"),
        (json.dumps({"version": 1, "tokens": [{"name": "X Y", "roles": [], "sha256": "0" * 64}]}), "/tokens/0/name"),
    ],
)
def test_bad_file_is_refused_at_start_naming_the_field(tmp_path: Path, content: str, names: str) -> None:
    path = tmp_path / "tokens.json"
    path.write_text(content)
    with pytest.raises(IdentityError) as caught:
        TokenAuthenticator.from_file(path)
    assert str(path) in str(caught.value)
    assert names in str(caught.value)


def test_missing_file_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(IdentityError, match="cannot be read: No such file"):
        TokenAuthenticator.from_file(tmp_path / "none")
