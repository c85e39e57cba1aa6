"""flintctl audit against a served API, and on files alone."""

from __future__ import annotations

import json
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from unit.api.rig import Rig

from controlplane.model.audit import AuditOutcome, AuditRecord, line_of, sealed
from controlplane.model.commands import BeginAudit

Cli = Callable[..., Any]


@pytest.fixture
def audited(api: Rig) -> Rig:
    api.do(BeginAudit(node="n1"))
    api.put("/namespaces/demo", {"spec": {}})
    api.put("/namespaces/demo", {"spec": {"max_vcpu": 4}})
    api.delete("/namespaces/demo", params={"reason": "of no use"})
    return api


@pytest.mark.usefixtures("audited")
def test_the_newest_records_are_listed(cli: Cli) -> None:
    shown = cli("audit", "list", "--kind", "Namespace", "--limit", "2").out.splitlines()
    assert [line.split()[:2] for line in shown[1:]] == [["3", shown[1].split()[1]], ["4", shown[2].split()[1]]]
    assert "alice" in shown[1]
    assert "of no use" in shown[2]
    answer = json.loads(cli("audit", "list", "--outcome", "created", "-o", "json").out)
    assert [each["name"] for each in answer["items"]] == ["demo"]
    assert cli("audit", "list", "--since", "2200-01-01").err == "No record matches.\n"


def test_an_export_verifies_by_itself_and_against_the_cluster(cli: Cli, audited: Rig, tmp_path: Path) -> None:
    target = tmp_path / "audit.jsonl"
    assert cli("audit", "export", "-o", str(target)).out == f"{target}: 4 records\n"
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert cli("audit", "export", "-o", str(target)).code == 1
    assert cli("audit", "verify", str(target)).out.startswith("Records 1 to 4 hold")
    assert cli("audit", "verify").out.startswith("Records 1 to 4 hold")
    audited.put("/namespaces/more", {"spec": {}})
    compared = cli("audit", "verify", "--live", str(target))
    assert compared.code == 0, compared.err
    assert compared.out.endswith("The cluster's chain, which ends at 5, has the same record 4.\n")


def test_the_first_record_that_was_changed_is_named(cli: Cli, audited: Rig, tmp_path: Path) -> None:
    target = tmp_path / "audit.jsonl"
    cli("audit", "export", "-o", str(target))
    lines = target.read_bytes().splitlines(keepends=True)
    target.write_bytes(b"".join([*lines[:2], lines[2].replace(b"alice", b"mally"), *lines[3:]]))
    found = cli("audit", "verify", str(target))
    assert found.code == 2
    assert "line 3 (record 3): its hash is not that of its content" in " ".join(found.err.split())
    target.write_bytes(b"".join([*lines[:2], b"{}\n"]))
    assert cli("audit", "verify", str(target)).code == 2


def test_an_export_that_somebody_forged_whole_is_not_the_clusters(cli: Cli, audited: Rig, tmp_path: Path) -> None:
    records = [audited.replica.state.audit_at(sequence) for sequence in (1, 2, 3)]
    forged = sealed(
        AuditRecord(sequence=4, at=4, actor="bob", action="x", outcome=AuditOutcome.DONE, previous=records[-1].hash)
    )
    target = tmp_path / "audit.jsonl"
    target.write_bytes(b"".join(line_of(each) for each in [*records, forged]))
    assert cli("audit", "verify", str(target)).code == 0
    found = cli("audit", "verify", "--live", str(target))
    assert found.code == 2
    assert "record 4 of the files is not the cluster's" in found.err
