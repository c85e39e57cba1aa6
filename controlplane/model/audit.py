"""The audit chain: who changed or tried what, as records that name the hash of the one before.

A record's hash is SHA-256 over its canonical JSON, which holds the hash before it: members in the order of their names,
no spaces, UTF-8, without what has no value, and without the hash itself. One line of an export is that JSON with the
hash in it. So whoever has a record that he trusts can check every earlier one, with this module or in ten lines of any
language; nobody can change, leave out, add or exchange one without changing every later hash.

The first record of a chain names its cluster, and follows `GENESIS`. Nothing here holds what a user wrote into
a spec: objects appear as names and digests.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from enum import StrEnum
from hashlib import sha256

import msgspec

from controlplane.model.types import DECODE_ERRORS, record

GENESIS = "0" * 64
MAX_TEXT = 256
"""Characters of any text in a record that somebody outside may choose."""


@record
class Origin:
    """Where a request came from."""

    address: str | None = None
    """The client's, as the node saw it."""
    request: str | None = None
    """The id of the request."""
    trace: str | None = None
    """The W3C trace id of the request."""
    agent: str | None = None
    """What the client calls itself (`User-Agent`)."""


class AuditOutcome(StrEnum):
    CREATED = "created"
    CHANGED = "changed"
    UNCHANGED = "unchanged"
    DELETED = "deleted"
    REFUSED = "refused"
    DONE = "done"
    """Something that changes no object: the members of the log, or reading the whole state."""


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """One link of the chain. Times are milliseconds since the Unix epoch, on the proposer's clock."""

    sequence: int
    """Counts from 1 without a gap."""
    at: int
    actor: str | None = None
    """None: nobody that is known."""
    action: str
    """The kind of the command, or the method and route of a request that led to none."""
    outcome: AuditOutcome
    command: str | None = None
    """Id of the command in the log."""
    kind: str | None = None
    namespace: str | None = None
    name: str | None = None
    uid: str | None = None
    before: str | None = None
    """Digest of the object before the command, as the digest of the state counts it; None: it was not there."""
    after: str | None = None
    reason: str | None = None
    """That the command gives."""
    code: str | None = None
    """Why it was refused."""
    status: int | None = None
    """HTTP status of a request that led to no command."""
    pointer: str | None = None
    """The field that the refusal is about."""
    part: int | None = None
    """Which part of a batch it is, or was refused for."""
    count: int = 1
    """So many equal requests within a short time."""
    node: str | None = None
    """Where a request was answered that led to no command."""
    address: str | None = None
    request: str | None = None
    trace: str | None = None
    agent: str | None = None
    previous: str
    """Hash of the record before, in hexadecimal."""
    hash: str = ""


@record
class AuditExport:
    """How far a node has written the chain into its own files."""

    node: str
    through: int
    """The sequence of the last record that is on its disk."""
    at: int


class BrokenChainError(Exception):
    """The chain does not hold. `line` counts from 1; `sequence` is what the line says, where it can be read."""

    def __init__(self, line: int, sequence: int | None, message: str) -> None:
        super().__init__(f"line {line}{f' (record {sequence})' if sequence is not None else ''}: {message}")
        self.line = line
        self.sequence = sequence
        self.message = message


_encoder = msgspec.json.Encoder(order="sorted")
_decoder = msgspec.json.Decoder(AuditRecord, strict=True)


def sealed(unsealed: AuditRecord) -> AuditRecord:
    """The record with its hash."""
    return msgspec.structs.replace(unsealed, hash=hash_of(unsealed))


def hash_of(of: AuditRecord) -> str:
    bare = msgspec.structs.replace(of, hash="") if of.hash else of
    return sha256(_encoder.encode(bare)).hexdigest()


def line_of(of: AuditRecord) -> bytes:
    """One line of an export, with its end."""
    return _encoder.encode(of) + b"\n"


def read_line(line: bytes) -> AuditRecord:
    """Raises ValueError unless `line` is exactly what `line_of` writes for some record."""
    try:
        found = _decoder.decode(line)
    except DECODE_ERRORS as error:
        raise ValueError(f"not a record: {error}") from error
    if line_of(found) != line:
        raise ValueError("not the canonical form of a record")
    return found


def followed(records: Iterable[AuditRecord], after: AuditRecord | None = None) -> Iterator[AuditRecord]:
    """`records`, each checked against the one before; `after` is the one before the first, if it is known.

    Raises BrokenChainError at the first that does not follow. Without `after`, what the first one follows is taken at
    its word, unless it is the first of the chain.
    """
    for number, each in enumerate(records, 1):
        if after is not None and each.sequence != after.sequence + 1:
            raise BrokenChainError(number, each.sequence, f"record {after.sequence + 1} should be here")
        if each.previous != (GENESIS if each.sequence == 1 else after.hash if after is not None else each.previous):
            raise BrokenChainError(number, each.sequence, "it does not follow the record before it")
        if hash_of(each) != each.hash:
            raise BrokenChainError(number, each.sequence, "its hash is not that of its content")
        after = each
        yield each


def read_lines(lines: Iterable[bytes]) -> Iterator[AuditRecord]:
    """The records of an export. Raises BrokenChainError."""
    for number, line in enumerate(lines, 1):
        try:
            yield read_line(line)
        except ValueError as error:
            raise BrokenChainError(number, None, str(error)) from error
