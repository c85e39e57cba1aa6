"""Writes what the log promises: JSON Schemas of its entries, and golden entries that every build must still read.

    .venv/bin/python schemas/generate_log.py            write what is missing
    .venv/bin/python schemas/generate_log.py --check    exit 1 when something is missing or stale (CI)

`schemas/log/entry.schema.json` and `schemas/log/KIND.schema.json` follow from the records. `schemas/log/golden/`
only grows: `KIND.N.json` is an envelope as JSON and as the bytes of its entry, and `history.N.json` a whole history
with the state that it leads to. When today's encoding differs from the newest golden file, the next number is written
and the older ones stay, because logs hold their bytes; the tests read and replay them all.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
from log_history import history
from pydantic import Field, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema

from controlplane import model
from controlplane.machine.codec import digest_text
from controlplane.machine.entry import apply_entry
from controlplane.machine.outcome import Outcome, Rejected
from controlplane.machine.state import State
from controlplane.model.audit import Origin
from controlplane.model.commands import ENTRY_VERSION, KINDS, Envelope, encode_entry, open_payload

LOG = Path(__file__).resolve().parent / "log"
GOLDEN = LOG / "golden"
CLUSTER_ID = "golden"


def describe_records() -> None:
    """Let pydantic, which knows the constraints of specs, see each record as the dataclass that it would be."""
    for record in msgspec.Struct.__subclasses__():
        if record.__module__.startswith(f"{model.__name__}."):
            record.__get_pydantic_core_schema__ = classmethod(_as_dataclass)  # pyright: ignore[reportAttributeAccessIssue]  # pydantic's hook


def _as_dataclass(record: type[msgspec.Struct], _source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
    hints = get_type_hints(record, include_extras=True)
    fields = [(each.name, hints[each.name], _described_default(each)) for each in msgspec.structs.fields(record)]
    described = {"__doc__": record.__doc__}
    return handler(dataclasses.make_dataclass(record.__name__, fields, namespace=described, kw_only=True))


def _described_default(of: msgspec.structs.FieldInfo) -> Any:
    if of.default_factory is not msgspec.NODEFAULT:
        return dataclasses.field(default_factory=of.default_factory)
    return Field() if of.default is msgspec.NODEFAULT else Field(default=msgspec.to_builtins(of.default))


def schemas() -> Iterator[tuple[str, Any]]:
    """(file name, JSON Schema) of each payload and of an entry, whose payloads are the union of them by kind."""
    describe_records()
    for kind, cls in KINDS.items():
        if kind != "batch":
            yield f"{kind}.schema.json", {"title": kind, **TypeAdapter(cls).json_schema()}
    envelope = {
        "type": "object",
        "required": ["kind", "id", "at", "actor", "payload"],
        "properties": {
            "kind": {"enum": list(KINDS)},
            "id": {"type": "string"},
            "at": {"type": "integer", "description": "Milliseconds since the Unix epoch, on the proposer's clock."},
            "actor": {"type": "string"},
            "payload": {"type": "object"},
            "key": {"type": ["string", "null"], "description": "Idempotency key, unique per actor."},
            "trace": {"type": ["string", "null"]},
            "origin": {
                "description": "Where the request came from; what the product decides by itself has none.",
                **TypeAdapter(Origin).json_schema(),
            },
        },
        "oneOf": [
            {"properties": {"kind": {"const": kind}, "payload": {"$ref": f"{kind}.schema.json"}}} for kind in KINDS
        ],
    }
    yield (
        "batch.schema.json",
        {
            "title": "batch",
            "type": "object",
            "required": ["commands"],
            "properties": {"commands": {"type": "array", "items": {"$ref": "entry.schema.json#/$defs/Envelope"}}},
        },
    )
    yield (
        "entry.schema.json",
        {
            "title": "entry",
            "description": "A log entry, as the JSON that its msgpack stands for.",
            "type": "object",
            "required": ["v", "commands"],
            "properties": {
                "v": {"const": ENTRY_VERSION},
                "commands": {"type": "array", "items": {"$ref": "#/$defs/Envelope"}},
            },
            "$defs": {"Envelope": envelope},
        },
    )


def readable(envelope: Envelope) -> dict[str, Any]:
    """The envelope as JSON, with its payload (and those inside a batch) decoded."""
    payload: Any = msgspec.msgpack.decode(envelope.payload)
    origin = {} if envelope.origin is msgspec.UNSET else {"origin": msgspec.to_builtins(envelope.origin)}
    return {
        "kind": envelope.kind,
        "id": envelope.id,
        "at": envelope.at,
        "actor": envelope.actor,
        "payload": payload,
        "key": envelope.key,
        "trace": envelope.trace,
        **origin,
    }


def told(outcome: Outcome) -> str:
    """An outcome in one word: what changed, or the code of the refusal."""
    return outcome.code.value if isinstance(outcome, Rejected) else outcome.change.value


def golden() -> Iterator[tuple[str, dict[str, Any]]]:
    """(stem, content) of each kind's example and of the history."""
    envelopes = history()
    for kind in KINDS:
        example = next(each for each in envelopes if each.kind == kind)
        open_payload(example)
        yield kind, {"envelope": readable(example), "entry_hex": encode_entry([example]).hex()}
    state = State(cluster_id=CLUSTER_ID)
    entries: list[dict[str, str]] = []
    for index, envelope in enumerate(envelopes, start=1):
        data = encode_entry([envelope])
        state, outcomes, _ = apply_entry(state, data, index=index, term=1)
        entries.append({"kind": envelope.kind, "outcome": told(outcomes[0][1]), "entry_hex": data.hex()})
    yield "history", {"entries": entries, "revision": state.revision, "digest": digest_text(state)}


def versions(stem: str) -> list[Path]:
    """The golden files of `stem`, the oldest first."""
    return sorted(GOLDEN.glob(f"{stem}.*.json"), key=lambda path: int(path.name.split(".")[1]))


def _text(content: Any) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _stale() -> Iterator[tuple[Path, str]]:
    """(path, content) of every file to be written."""
    for name, schema in schemas():
        path = LOG / name
        if not path.exists() or path.read_text(encoding="utf-8") != _text(schema):
            yield path, _text(schema)
    for stem, content in golden():
        known = versions(stem)
        if not known or known[-1].read_text(encoding="utf-8") != _text(content):
            yield GOLDEN / f"{stem}.{len(known) + 1}.json", _text(content)


def main() -> int:
    parser = argparse.ArgumentParser(description="Generate schemas/log from the commands.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when something would be written")
    check = bool(vars(parser.parse_args())["check"])
    stale = list(_stale())
    for path, text in stale:
        if check:
            sys.stderr.write(f"stale: {path.relative_to(LOG.parent.parent)}\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    if not check:
        sys.stdout.write(f"schemas/log: {len(stale)} files written\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
