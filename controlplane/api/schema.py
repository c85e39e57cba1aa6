"""Writes what the API says of itself to schemas/, and checks that the files there are up to date.

    python -m controlplane.api.schema            write schemas/openapi.json and schemas/resources/*.json
    python -m controlplane.api.schema --check    exit 1 and name each file that differs or does not belong there

`resources/KIND.json` is what a user may write (an item of a batch), `resources/KIND.read.json` what is read back. All
of it comes from the models that serve the API, so the output depends on nothing but the code. The log's schemas stand
beside them and are written by schemas/generate_log.py.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from pydantic.json_schema import models_json_schema

from controlplane.api.http import declarations, host_shapes, policy_shapes, shapes
from controlplane.api.http.app import create_app
from controlplane.api.http.settings import ApiSettings
from controlplane.ports import AgentLink, Clock, Ids, Log, LogAdmin, NodeLink, Proposer, SnapshotSource, StateReader

_ROOT = Path(__file__).resolve().parents[2] / "schemas"
_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_VERSION = "v2"
"""Of the document: the API's, since it changes with nothing else."""

_RESOURCES = {
    "microvm": (declarations.MicroVMItem, shapes.MicroVMResource),
    "host": (declarations.HostItem, host_shapes.HostResource),
    "namespace": (declarations.NamespaceItem, policy_shapes.NamespaceResource),
    "placementpolicy": (declarations.PlacementPolicyItem, policy_shapes.PlacementPolicyResource),
    "role": (declarations.RoleItem, policy_shapes.RoleResource),
    "rolebinding": (declarations.RoleBindingItem, policy_shapes.RoleBindingResource),
    "failoverpolicy": (declarations.FailoverPolicyItem, policy_shapes.FailoverPolicyResource),
    "gcpolicy": (declarations.GCPolicyItem, policy_shapes.GCPolicyResource),
}


def documents() -> dict[str, Any]:
    """Every generated file, by its path below schemas/."""
    found: dict[str, Any] = {"openapi.json": _openapi()}
    for name, (written, read) in _RESOURCES.items():
        found[f"resources/{name}.json"] = _schema_of(written, "validation")
        found[f"resources/{name}.read.json"] = _schema_of(read, "serialization")
    return found


def _openapi() -> dict[str, Any]:
    nothing = cast("Any", None)
    app = create_app(
        reader=cast("StateReader", nothing),
        proposer=cast("Proposer", nothing),
        agents=cast("AgentLink", nothing),
        nodes=cast("NodeLink", nothing),
        log=cast("Log", nothing),
        members=cast("LogAdmin", nothing),
        snapshots=cast("SnapshotSource", nothing),
        gc_refused=Counter(),
        forecast=lambda _state, _host: (),
        backup=lambda: None,
        identity=nothing,
        clock=cast("Clock", nothing),
        ids=cast("Ids", nothing),
        settings=ApiSettings(node="", version=_VERSION),
    )
    return app.openapi()


def _schema_of(model: type[Any], mode: Any) -> dict[str, Any]:
    references, schema = models_json_schema([(model, mode)])
    return {"$schema": _DIALECT, **references[model, mode], **schema}


def render(document: Mapping[str, Any]) -> str:
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def differences(root: Path) -> list[str]:
    """What `write` would change, a line each."""
    wanted = {path: render(document) for path, document in documents().items()}
    found = [
        f"{path}: {'differs' if (root / path).exists() else 'is missing'}"
        for path, text in wanted.items()
        if not (root / path).exists() or (root / path).read_text(encoding="utf-8") != text
    ]
    return sorted(found + [f"{path}: does not belong there" for path in _present(root) - wanted.keys()])


def write(root: Path) -> None:
    wanted = {path: render(document) for path, document in documents().items()}
    for path in _present(root) - wanted.keys():
        (root / path).unlink()
    for path, text in wanted.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")


def _present(root: Path) -> set[str]:
    patterns = ("openapi.json", "resources/*.json")
    return {str(path.relative_to(root)) for pattern in patterns for path in root.glob(pattern)}


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m controlplane.api.schema", description="Generate the API's part of schemas/."
    )
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is out of date")
    parser.add_argument("--root", type=Path, default=_ROOT, help="the schemas/ folder")
    arguments = parser.parse_args()
    if not arguments.check:
        write(arguments.root)
        return 0
    found = differences(arguments.root)
    for line in found:
        sys.stderr.write(f"schemas/{line}; run `python -m controlplane.api.schema`\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
