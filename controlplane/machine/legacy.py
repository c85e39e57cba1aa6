"""Snapshots of format 1, one document with the whole state: read once, when a data directory of then is opened."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import msgspec

from controlplane.machine.codec import full_digest
from controlplane.machine.draft import Record, reindex_host, reindex_microvm
from controlplane.machine.recent_events import unknown_before
from controlplane.machine.state import Queue, State
from controlplane.machine.table import Table
from controlplane.model.resources import (
    Host,
    IdempotencyRecord,
    MicroVM,
    Namespace,
    Operation,
    PlacementPolicy,
)
from controlplane.model.types import DECODE_ERRORS, record, replace

FORMAT = 1


@record
class Dump:
    format: int
    cluster_id: str
    machine_version: int
    revision: int
    digest: str
    hosts: list[Host]
    namespaces: list[Namespace]
    policies: list[PlacementPolicy]
    microvms: list[MicroVM]
    operations: list[Operation]
    """Those that run in order of their ids, then the ended ones in the order in which they are to be forgotten."""
    keys: list[tuple[str, IdempotencyRecord]]
    """In the order in which they are to be forgotten."""


_decoder = msgspec.msgpack.Decoder(Dump)
Item = TypeVar("Item", bound=Record)


def load_dump(data: bytes) -> State:
    """The state of a format 1 snapshot. Raises ValueError if `data` is none.

    The digest that it claims is of digest format 1, which this build does not reckon; its file has a SHA-256.
    """
    try:
        read = _decoder.decode(data)
    except DECODE_ERRORS as error:
        raise ValueError(f"not a state snapshot: {error}") from error
    if read.format != FORMAT:
        raise ValueError(f"state snapshot of format {read.format}; {FORMAT} was expected")
    state = State(
        cluster_id=read.cluster_id,
        machine_version=read.machine_version,
        revision=read.revision,
        hosts=_table(read.hosts, lambda each: each.meta.name),
        namespaces=_table(read.namespaces, lambda each: each.meta.name),
        policies=_table(read.policies, lambda each: each.meta.name),
        microvms=_table(read.microvms, lambda each: each.meta.uid),
        operations=_table(read.operations, lambda each: each.id),
        keys=Table(read.keys),
        finished=_queue(each.id for each in read.operations if each.finished_at is not None),
        key_order=_queue(key for key, _ in read.keys),
        recent=unknown_before(read.revision),
    )
    for host in read.hosts:
        state = reindex_host(state, None, host)
    for vm in read.microvms:
        state = reindex_microvm(state, None, vm)
    return replace(state, digest=full_digest(state))


def _table(items: Iterable[Item], key: Callable[[Item], str]) -> Table[Item]:
    return Table((key(item), item) for item in items)


def _queue(keys: Iterable[str]) -> Queue:
    queue = Queue()
    for key in keys:
        queue = queue.push(key)
    return queue
