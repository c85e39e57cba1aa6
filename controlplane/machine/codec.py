"""State to chunks and back, for snapshots.

Equal states give equal chunks. A chunk is a group of neighbouring buckets of one table, or a block of a queue or of the
recent events; how many buckets make a group follows from the size of the table, so that a chunk holds some ten records.
What identifies a group is its buckets themselves: the same objects, the same chunk. A load recomputes every index and
the digest. The order in which operations and keys are to be forgotten is part of the state: a node that loaded a
snapshot must forget the same ones as a node that did not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, Generic, TypeVar, cast

import msgspec
from immutables import Map

from controlplane.machine.convergence import amount_of
from controlplane.machine.draft import DIGEST_FORMAT, DIGEST_MODULUS, Record, digest_of
from controlplane.machine.recent_events import RecentEvents, loaded, unknown_before
from controlplane.machine.state import BLOCK, Queue, State, audit_key
from controlplane.machine.table import BUCKET_BITS, Bucket, Table, bucket_of
from controlplane.manifest import StatePart
from controlplane.model.api_tokens import ApiToken
from controlplane.model.audit import AuditExport, AuditRecord, hash_of
from controlplane.model.commands.versions import MACHINE_VERSION
from controlplane.model.credentials import ClusterAuthority, Holder, JoinToken
from controlplane.model.event_records import EventRecord
from controlplane.model.gc import Tally
from controlplane.model.groups import MicroVMGroup
from controlplane.model.policies import policies_named
from controlplane.model.resources import (
    Amount,
    FailoverPolicy,
    GCPolicy,
    Host,
    IdempotencyRecord,
    Incarnation,
    MicroVM,
    MicroVMPhase,
    Namespace,
    Operation,
    Override,
    PlacementPolicy,
    Role,
    RoleBinding,
)
from controlplane.model.secrets import DataKey
from controlplane.model.types import DECODE_ERRORS, Kind

FORMAT = 2
RECORDS_PER_CHUNK = 16
"""A table's chunks hold between half of this and this, on average, up to 2**BUCKET_BITS chunks."""
CHUNK_BYTES = 1 << 20
"""A larger chunk is cut in two, unless it is a single record."""

V = TypeVar("V", bound=Record)


class Header(msgspec.Struct, array_like=True, frozen=True):
    """What a snapshot says of the state besides its chunks."""

    format: int
    cluster_id: str
    machine_version: int
    revision: int
    digest: str
    finished: tuple[int, int]
    """Head and tail of the queue of ended operations."""
    key_order: tuple[int, int]
    counts: dict[str, int]
    """Records by table."""
    digest_format: int = 1
    events: tuple[int, int] = (0, 0)
    """Head and tail of the recent events."""
    forgotten: tuple[int, int] | None = None
    """The place of the newest event that is not held; None: of a build that kept none."""


class _Records(msgspec.Struct, Generic[V], array_like=True, frozen=True):
    items: list[tuple[str, V]]


class _Hosts(_Records[Host], tag="hosts", frozen=True): ...


class _Namespaces(_Records[Namespace], tag="namespaces", frozen=True): ...


class _Policies(_Records[PlacementPolicy], tag="policies", frozen=True): ...


class _FailoverPolicies(_Records[FailoverPolicy], tag="failover_policies", frozen=True): ...


class _GCPolicies(_Records[GCPolicy], tag="gc_policies", frozen=True): ...


class _MicroVMs(_Records[MicroVM], tag="microvms", frozen=True): ...


class _Operations(_Records[Operation], tag="operations", frozen=True): ...


class _Keys(_Records[IdempotencyRecord], tag="keys", frozen=True): ...


class _Incarnations(_Records[Incarnation], tag="incarnations", frozen=True): ...


class _Tallies(_Records[Tally], tag="tallies", frozen=True): ...


class _Overrides(_Records[Override], tag="overrides", frozen=True): ...


class _Roles(_Records[Role], tag="roles", frozen=True): ...


class _RoleBindings(_Records[RoleBinding], tag="role_bindings", frozen=True): ...


class _ApiTokens(_Records[ApiToken], tag="api_tokens", frozen=True): ...


class _Audit(_Records[AuditRecord], tag="audit", frozen=True): ...


class _AuditExports(_Records[AuditExport], tag="audit_exports", frozen=True): ...


class _Authorities(_Records[ClusterAuthority], tag="authorities", frozen=True): ...


class _JoinTokens(_Records[JoinToken], tag="join_tokens", frozen=True): ...


class _Holders(_Records[Holder], tag="holders", frozen=True): ...


class _MicroVMGroups(_Records[MicroVMGroup], tag="microvm_groups", frozen=True): ...


class _DataKeys(_Records[DataKey], tag="data_keys", frozen=True): ...


class _Finished(msgspec.Struct, tag="finished", array_like=True, frozen=True):
    """A block of the queue of ended operations."""

    number: int
    keys: list[str]


class _KeyOrder(msgspec.Struct, tag="key_order", array_like=True, frozen=True):
    number: int
    keys: list[str]


class _Events(msgspec.Struct, tag="events", array_like=True, frozen=True):
    """A block of the recent events."""

    number: int
    items: list[EventRecord]


_TableChunk = (
    _Hosts
    | _Namespaces
    | _Policies
    | _FailoverPolicies
    | _MicroVMs
    | _Operations
    | _Keys
    | _Incarnations
    | _Tallies
    | _Overrides
    | _GCPolicies
    | _Roles
    | _RoleBindings
    | _ApiTokens
    | _Audit
    | _AuditExports
    | _Authorities
    | _JoinTokens
    | _Holders
    | _MicroVMGroups
    | _DataKeys
)
_Chunk = _TableChunk | _Finished | _KeyOrder | _Events

TABLES: tuple[str, ...] = (
    "hosts",
    "namespaces",
    "policies",
    "microvms",
    "operations",
    "keys",
    "incarnations",
    "failover_policies",
    "tallies",
    "overrides",
    "gc_policies",
    "roles",
    "role_bindings",
    "api_tokens",
    "audit",
    "audit_exports",
    "authorities",
    "join_tokens",
    "holders",
    "microvm_groups",
    "data_keys",
)
"""The fields of State that are tables of records; their chunks are tagged with the same names."""

_encoder = msgspec.msgpack.Encoder(order="deterministic")
_header_decoder = msgspec.msgpack.Decoder(Header)
_chunk_decoder = msgspec.msgpack.Decoder(_Chunk)


def digest_text(state: State) -> str:
    return f"{state.digest:032x}"


def full_digest(state: State) -> int:
    """The digest reckoned from every record but the audit chain's, to check the incremental one."""
    counted = (table for name, table in _tables(state) if name != _Audit.__struct_config__.tag)
    return sum(digest_of(key, each) for table in counted for key, each in table.items()) % DIGEST_MODULUS


def _tables(state: State) -> tuple[tuple[str, Table[Record]], ...]:
    # Only read here, so that a table of hosts is one of records.
    return tuple((name, cast("Table[Record]", getattr(state, name))) for name in TABLES)


# -- writing -----------------------------------------------------------------------------------------------------------


class View:
    """A state as snapshots see it (ports.StateView). Holds the records and not the indexes."""

    def __init__(self, state: State) -> None:
        self._tables = _tables(state)
        self._blocks: tuple[tuple[str, Map[int, tuple[object, ...]]], ...] = (
            ("finished", state.finished.blocks),
            ("key_order", state.key_order.blocks),
            ("events", state.recent.blocks),
        )
        self._header = Header(
            format=FORMAT,
            cluster_id=state.cluster_id,
            machine_version=state.machine_version,
            revision=state.revision,
            digest=digest_text(state),
            finished=(state.finished.head, state.finished.tail),
            key_order=(state.key_order.head, state.key_order.tail),
            counts={name: len(table) for name, table in self._tables},
            digest_format=DIGEST_FORMAT,
            events=(state.recent.head, state.recent.tail),
            forgotten=state.recent.forgotten,
        )

    def header(self) -> bytes:
        return _encoder.encode(self._header)

    def parts(self) -> Iterator[StatePart]:
        for name, table in self._tables:
            yield from _table_parts(name, table)
        for name, blocks in self._blocks:
            for number in sorted(blocks):
                block = blocks[number]
                yield StatePart(f"{name}/{number}", (block,), partial(_encode_block, name, number, block))


def _table_parts(name: str, table: Table[Record]) -> Iterator[StatePart]:
    bits = min(BUCKET_BITS, (len(table) // RECORDS_PER_CHUNK).bit_length())
    span = 1 << (BUCKET_BITS - bits)
    buckets = table.buckets
    for group in range(1 << bits):
        numbers = range(group * span, (group + 1) * span)
        # Where there are few, it is they that are looked through, not all places where one could be.
        there = sorted(filter(numbers.__contains__, buckets)) if len(buckets) < span else numbers
        found = tuple([each for number in there if (each := buckets.get(number)) is not None])
        if found:
            yield StatePart(f"{name}/{bits}/{group}", found, partial(_encode_group, name, found))


def _encode_group(name: str, buckets: tuple[Bucket[Record], ...]) -> list[bytes]:
    items = [item for bucket in buckets for item in bucket.items()]
    items.sort(key=_key)
    return _encode_items(name, items)


def _key(item: tuple[str, Record]) -> str:
    return item[0]


def _encode_items(name: str, items: list[tuple[str, Record]]) -> list[bytes]:
    data = _encoder.encode((name, items))
    if len(data) <= CHUNK_BYTES or len(items) == 1:
        return [data]
    middle = len(items) // 2
    return _encode_items(name, items[:middle]) + _encode_items(name, items[middle:])


def _encode_block(name: str, number: int, block: tuple[object, ...]) -> list[bytes]:
    return [_encoder.encode((name, number, block))]


# -- reading -----------------------------------------------------------------------------------------------------------


def read_header(data: bytes) -> Header:
    """Raises ValueError when `data` is not the header of a state that this build reads."""
    try:
        header = _header_decoder.decode(data)
    except DECODE_ERRORS as error:
        raise ValueError(f"not the header of a state snapshot: {error}") from error
    if header.format != FORMAT:
        raise ValueError(f"state snapshot of format {header.format}; this build reads {FORMAT}")
    if header.machine_version > MACHINE_VERSION:
        raise ValueError(
            f"state snapshot of machine version {header.machine_version}; this build knows {MACHINE_VERSION}: "
            "use the build that the cluster's other nodes have"
        )
    return header


class Loader:
    """Builds the state of a snapshot, a chunk at a time (ports.StateLoader). The chunks may come in any order."""

    def __init__(self, header: bytes) -> None:
        """Raises ValueError."""
        self.header = read_header(header)
        self._digest = 0
        self._tables = {name: _TableBuilder[Any]() for name in TABLES}
        self._finished: dict[int, tuple[str, ...]] = {}
        self._key_order: dict[int, tuple[str, ...]] = {}
        self._events: dict[int, list[EventRecord]] = {}
        self._indexes = _Indexes()

    def add(self, chunk: bytes) -> None:
        """Raises ValueError when `chunk` is not one; that it is the right one, `finish` finds out."""
        try:
            read: _Chunk = _chunk_decoder.decode(chunk)
        except DECODE_ERRORS as error:
            raise ValueError(f"not a chunk of a state snapshot: {error}") from error
        match read:
            case _Finished():
                self._finished[read.number] = tuple(read.keys)
            case _KeyOrder():
                self._key_order[read.number] = tuple(read.keys)
            case _Events():
                self._events[read.number] = read.items
            case _:
                self._take(read)

    def _take(self, read: _TableChunk) -> None:
        self._tables[str(read.__struct_config__.tag)].add(read.items)
        if isinstance(read, _Audit):
            # The digest leaves them out: each has a hash of its own.
            wrong = next((each.sequence for _, each in read.items if hash_of(each) != each.hash), None)
            if wrong is not None:
                raise ValueError(f"state snapshot: audit record {wrong} has another hash than its content")
            return
        self._digest += sum([digest_of(key, value) for key, value in read.items])
        if isinstance(read, _MicroVMs):
            for _, vm in read.items:
                self._indexes.add(vm)
        if isinstance(read, _Hosts):
            self._indexes.with_strangers.update((name, None) for name, host in read.items if host.unmanaged)

    def finish(self) -> State:
        """The state. Raises ValueError if the chunks do not make the one that the header describes."""
        header, indexes = self.header, self._indexes
        tables: dict[str, Table[Any]] = {name: builder.table() for name, builder in self._tables.items()}
        state = State(
            cluster_id=header.cluster_id,
            machine_version=header.machine_version,
            revision=header.revision,
            digest=self._digest % DIGEST_MODULUS,
            names=indexes.names.finish(),
            pending=indexes.pending.finish(),
            failed=indexes.failed.finish(),
            on_host=Map({host: uids.finish() for host, uids in indexes.on_host.items()}),
            members=Map({group: uids.finish() for group, uids in indexes.members.items()}),
            with_strangers=Map(indexes.with_strangers),
            usage=Map(indexes.usage),
            policy_users=Map(indexes.policy_users),
            finished=_queue("finished", self._finished, header.finished, tables["operations"]),
            key_order=_queue("key_order", self._key_order, header.key_order, tables["keys"]),
            audit_head=_audit_head(tables["audit"]),
            begun=max(tables["incarnations"].values(), key=lambda each: each.number, default=None),
            recent=self._recent(),
            **tables,
        )
        # An older build may have reckoned it otherwise; every chunk still has the hash that the manifest names.
        if header.digest_format == DIGEST_FORMAT and digest_text(state) != header.digest:
            raise ValueError(f"state snapshot says digest {header.digest}, its records give {digest_text(state)}")
        return state

    def _recent(self) -> RecentEvents:
        header = self.header
        if header.forgotten is None:
            return unknown_before(header.revision)
        return loaded(self._events, header.events, header.forgotten)


class _TableBuilder(Generic[V]):
    def __init__(self) -> None:
        self._buckets = Map[int, Bucket[V]]().mutate()
        self._size = 0

    def add(self, items: Iterable[tuple[str, V]]) -> None:
        grouped: dict[int, dict[str, V]] = {}
        for key, value in items:
            grouped.setdefault(bucket_of(key), {})[key] = value
        for number, new in grouped.items():
            # A bucket is in two chunks only where a large one was cut.
            old = self._buckets.get(number)
            bucket: Bucket[V] = new if old is None else {**old, **new}
            self._buckets[number] = bucket
            self._size += len(bucket) - (0 if old is None else len(old))

    def table(self) -> Table[V]:
        return Table[V].of_buckets(self._buckets.finish(), self._size)


class _Indexes:
    """What follows from microVMs and hosts, in the shape that State has it; `draft.reindex_...` keep it in step."""

    def __init__(self) -> None:
        self.names = Map[str, str]().mutate()
        self.pending = Map[str, None]().mutate()
        self.failed = Map[str, None]().mutate()
        self.on_host: dict[str, _Uids] = {}
        self.members: dict[str, _Uids] = {}
        self.with_strangers: dict[str, None] = {}
        self.usage: dict[str, Amount] = {}
        self.policy_users: dict[tuple[Kind, str], int] = {}

    def add(self, vm: MicroVM) -> None:
        meta = vm.meta
        self.names[f"{meta.namespace}/{meta.name}"] = meta.uid
        if vm.phase is MicroVMPhase.PENDING:
            self.pending[meta.uid] = None
        if vm.phase is MicroVMPhase.FAILED:
            self.failed[meta.uid] = None
        if vm.placement is not None:
            uids = self.on_host.get(vm.placement.host)
            if uids is None:
                uids = self.on_host[vm.placement.host] = _Uids()
            uids.add(meta.uid)
        if vm.group is not None:
            self.members.setdefault(vm.group, _Uids()).add(meta.uid)
        namespace = str(meta.namespace)
        self.usage[namespace] = self.usage.get(namespace, Amount()) + amount_of(vm.spec)
        for named in policies_named(vm.spec):
            policy = (named.kind, named.name)
            self.policy_users[policy] = self.policy_users.get(policy, 0) + 1


class _Uids:
    def __init__(self) -> None:
        self._uids = Map[str, None]().mutate()

    def add(self, uid: str) -> None:
        self._uids[uid] = None

    def finish(self) -> Map[str, None]:
        return self._uids.finish()


def _queue(name: str, blocks: dict[int, tuple[str, ...]], ends: tuple[int, int], known: Table[V]) -> Queue:
    head, tail = ends
    needed = range(head // BLOCK, -(-tail // BLOCK))
    sizes = {number: min(BLOCK, tail - number * BLOCK) for number in needed}
    if not 0 <= head <= tail or {number: len(block) for number, block in blocks.items()} != sizes:
        raise ValueError(f"state snapshot: the blocks of {name} are not those from {head} to {tail}")
    queue = Queue(blocks=Map(blocks), head=head, tail=tail)
    missing = next((key for key in queue if key not in known), None)
    if missing is not None:
        raise ValueError(f"state snapshot: {name} holds {missing!r}, of which there is no record")
    return queue


def _audit_head(audit: Table[AuditRecord]) -> int:
    head = max((each.sequence for each in audit.values()), default=0)
    if any(audit_key(sequence) not in audit for sequence in range(head - len(audit) + 1, head + 1)):
        raise ValueError("state snapshot: the audit records are not those of one chain")
    return head
