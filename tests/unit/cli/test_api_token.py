"""flintctl api-token against a served API: the secret is told once, and to one place."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unit.api.rig import Rig

Cli = Callable[..., Any]


def knows(api: Rig, secret: str) -> bool:
    return api.get("/auth/whoami", headers={"Authorization": f"Bearer {secret}"}).status_code == 200


def test_stdout_is_the_secret_and_nothing_else(cli: Cli, api: Rig) -> None:
    made = cli("api-token", "create", "ci", "--group", "web", "--verb", "read", "-n", "demo", "--ttl", "2h")
    assert made.code == 0, made.err
    secret = made.out.strip()
    assert knows(api, secret)
    assert secret not in made.err
    listed = cli("api-token", "list").out
    assert "read in demo" in listed
    assert secret not in listed + cli("api-token", "show", "ci").out + cli("api-token", "show", "ci", "-o", "json").out


def test_a_file_gets_the_secret_and_stdout_does_not(cli: Cli, api: Rig, tmp_path: Path) -> None:
    file = tmp_path / "ci.token"
    made = cli("api-token", "create", "ci", "--out", str(file), "-o", "json")
    assert made.code == 0, made.err
    first = file.read_text().strip()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert knows(api, first)
    assert "secret" not in json.loads(made.out)
    assert first not in made.out + made.err
    refused = cli("api-token", "create", "other", "--out", str(file))
    assert refused.code == 1
    assert "exists already" in refused.err
    assert cli("api-token", "show", "other").code != 0
    assert cli("api-token", "rotate", "ci", "--overlap", "1m", "--out", str(file)).code == 0
    second = file.read_text().strip()
    assert second != first
    assert knows(api, first)
    assert knows(api, second)


def test_a_revoked_token_is_nobodys(cli: Cli, api: Rig) -> None:
    secret = json.loads(cli("api-token", "create", "ci", "-o", "json").out)["secret"]
    assert cli("api-token", "revoke", "ci").out == "API token ci: revoked\n"
    assert not knows(api, secret)
    assert cli("api-token", "revoke", "ci").code != 0
    assert "No API tokens" in cli("api-token", "list").err


def test_bad_durations_are_refused_before_anything_is_sent(cli: Cli, api: Rig) -> None:
    before = api.digest
    assert cli("api-token", "create", "ci", "--ttl", "1y").code == 2
    assert api.digest == before
