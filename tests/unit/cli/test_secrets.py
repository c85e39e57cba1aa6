"""Secrets at the command line: declared from a file, shown as digests, and sealed anew."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from unit.api.rig import Rig
from unit.cli.conftest import Cli

SECRET = "correct-horse-battery-staple"
FLEET = f"""\
kind: MicroVM
namespace: demo
name: web
spec: {{vcpu: 1, memory_in_mb: 128, kernel: {{image: "demo/kernel:6.1"}}}}
sensitive_metadata: {{user-data: {SECRET}}}
"""


@pytest.fixture
def file(api: Rig, tmp_path: Path) -> Path:
    api.with_host()
    path = tmp_path / "fleet.yaml"
    path.write_text(FLEET)
    return path


def test_a_secret_is_declared_compared_and_never_printed(cli: Cli, api: Rig, file: Path) -> None:
    said = [cli("apply", "-f", str(file)), cli("apply", "-f", str(file)), cli("apply", "-f", str(file), "--dry-run")]
    assert "1 created" in said[0].out
    assert all("= MicroVM demo/web: unchanged" in answer.out for answer in said[1:]), [each.out for each in said]
    file.write_text(FLEET.replace(SECRET, "another-one-altogether"))
    planned = cli("apply", "-f", str(file), "--dry-run")
    assert re.search(r'/spec/sensitive_metadata/user-data: "hmac-\S+" -> "hmac-\S+" \(restart\)', planned.out)
    said += [planned, cli("apply", "-f", str(file)), cli("vm", "show", "demo/web", "-o", "yaml")]
    assert not [answer for answer in said if SECRET in answer.out + answer.err or "another-one" in answer.out]
    assert api.vm().meta.generation == 2


def test_what_is_shown_can_be_applied_again(cli: Cli, api: Rig, file: Path, tmp_path: Path) -> None:
    cli("apply", "-f", str(file))
    (tmp_path / "shown.yaml").write_text(cli("vm", "show", "demo/web", "-o", "yaml").out)
    assert "1 unchanged" in cli("apply", "-f", str(tmp_path / "shown.yaml")).out
    assert set(api.vm().sealed) == {"user-data"}


def test_a_rotation_is_seen_until_its_end(cli: Cli, file: Path) -> None:
    assert "No secrets yet." in cli("secrets", "status").err
    cli("apply", "-f", str(file))
    (only,) = cli("secrets", "status").out.splitlines()[1:]
    assert "seals" in only
    rotated = cli("secrets", "rotate")
    assert [line.split()[3] for line in rotated.out.splitlines()[1:]] == ["seals", "going"]
    waited = cli("secrets", "rotate", "--wait-s", "0.1")
    assert (waited.code, "not done after 0.1 s" in waited.err) == (1, True), "nobody leads here"
