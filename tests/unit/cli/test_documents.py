"""Resource files: every shape that is accepted, in the order in which it is declared; and the diff of two documents."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.cli import diff, documents

LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)
JSON = st.recursive(LEAVES, lambda inner: st.dictionaries(st.text(max_size=3), inner, max_size=4), max_leaves=12)


def test_order_of_declaration_is_by_reference(tmp_path: Path) -> None:
    vm = {"kind": "MicroVM", "name": "a", "spec": {"vcpu": 1}}
    (tmp_path / "b.yaml").write_text(json.dumps([vm, {"kind": "Host", "name": "h1"}]))
    (tmp_path / "a.json").write_text(json.dumps({"items": [{"kind": "Namespace", "name": "demo"}]}))
    (tmp_path / "c.yml").write_text("kind: PlacementPolicy\nname: p\nspec: {}\n")
    (tmp_path / "ignored.txt").write_text("kind: [")
    found = documents.read([str(tmp_path)], namespace="demo")
    assert [document.label for document in found] == [
        "Namespace demo",
        "PlacementPolicy p",
        "Host h1",
        "MicroVM demo/a",
    ]
    assert found[-1].path == "/namespaces/demo/microvms/a"
    assert found[1].path == "/placementpolicies/p"


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO('{"kind": "Host", "name": "h1"}'))
    assert documents.read(["-"], namespace="demo")[0].resource == {"kind": "Host", "name": "h1", "spec": {}}


def test_what_the_api_wrote_is_dropped(tmp_path: Path) -> None:
    resource = {"kind": "Host", "name": "h1", "uid": "01X", "status": {}, "revision": 5, "spec": {}, "something_new": 1}
    (tmp_path / "h.json").write_text(json.dumps(resource))
    found = documents.read([str(tmp_path / "h.json")], namespace="demo")
    assert found[0].resource == {"kind": "Host", "name": "h1", "spec": {}}


@given(document=JSON)
def test_a_document_does_not_differ_from_itself(document: Any) -> None:
    assert list(diff.changes(document, document)) == []


@given(
    before=st.dictionaries(st.text(max_size=3), JSON, max_size=4),
    after=st.dictionaries(st.text(max_size=3), JSON, max_size=4),
)
def test_changes_lead_from_before_to_after(before: dict[str, Any], after: dict[str, Any]) -> None:
    result: dict[str, Any] = json.loads(json.dumps(before))
    for pointer, _, new in diff.changes(before, after):
        *path, last = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
        inner = result
        for part in path:
            inner = inner[part]
        if new is diff.MISSING:
            del inner[last]
        else:
            inner[last] = new
    assert result == after
