"""flintctl auth, role and rolebinding against a served API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unit.api.rig import Rig

Cli = Callable[..., Any]
BINDING = """
kind: Role
name: restarter
spec: {rules: [{verbs: [act], kinds: [MicroVM], namespaces: [web]}]}
---
kind: RoleBinding
name: web-ci
spec: {role: restarter, subjects: [{kind: token, name: ci}]}
"""


def test_roles_and_bindings_are_applied_and_shown(cli: Cli, api: Rig, tmp_path: Path) -> None:
    file = tmp_path / "access.yaml"
    file.write_text(BINDING)
    applied = cli("apply", "-f", str(file))
    assert applied.code == 0, applied.err
    shown = cli("rolebinding", "list").out
    assert "restarter" in shown
    assert "token/ci" in shown
    assert "act" in cli("role", "show", "restarter").out
    assert cli("auth", "can-i", "act", "microvm", "-n", "web", "--as", "ci").out == "yes\n"
    refused = cli("auth", "can-i", "act", "microvm", "-n", "other", "--as", "token/ci")
    assert (refused.code, refused.out) == (1, "no\n")
    why = cli("auth", "why-not", "act", "microvm", "-n", "other", "--as", "ci").out
    assert "role restarter, given by binding web-ci, holds in namespace web only" in why
    assert cli("delete", "-f", str(file), "--yes").code == 0
    assert "No roles found." in cli("role", "list").err


def test_whoami_shows_where_each_role_is_from(cli: Cli, api: Rig) -> None:
    api.bind("alice", "viewer", "web")
    found = json.loads(cli("auth", "whoami", "-o", "json").out)
    assert found["roles"] == [
        {"role": "admin", "binding": None, "namespaces": None},
        {"role": "viewer", "binding": "alice", "namespaces": ["web"]},
    ]
    assert "the credential itself" in cli("auth", "whoami").out


def test_a_misspelt_verb_or_kind_is_named_with_those_there_are(cli: Cli, api: Rig) -> None:
    verb, kind = cli("auth", "can-i", "get", "microvm"), cli("auth", "can-i", "read", "pod")
    assert (verb.code, kind.code) == (2, 2)
    assert "declare" in verb.err
    assert "microvm" in kind.err
