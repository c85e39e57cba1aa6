"""State to bytes and back, for snapshots.

Equal states give equal bytes; a load recomputes every index and the digest. The order in which operations and keys are
to be forgotten is part of the state: a node that loaded a snapshot must forget the same ones as a node that did not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

import msgspec
from immutables import Map

from controlplane.machine.draft import DIGEST_MODULUS, Record, digest_of, reindex_microvm
from controlplane.machine.state import Queue, State
from controlplane.model.resources import (
    Host,
    IdempotencyRecord,
    MicroVM,
    Namespace,
    Operation,
    PlacementPolicy,
)
from controlplane.model.types import record

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


_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Dump)
Item = TypeVar("Item", bound=Record)


def dump(state: State) -> bytes:
    """The whole state, its records in order of their keys."""
    return _encoder.encode(
        Dump(
            format=FORMAT,
            cluster_id=state.cluster_id,
            machine_version=state.machine_version,
            revision=state.revision,
            digest=digest_text(state),
            hosts=_values(state.hosts),
            namespaces=_values(state.namespaces),
            policies=_values(state.policies),
            microvms=_values(state.microvms),
            operations=[
                *(each for each in _values(state.operations) if each.finished_at is None),
                *(state.operations[id_] for id_ in state.finished),
            ],
            keys=[(key, state.keys[key]) for key in state.key_order],
        )
    )


def load(data: bytes) -> State:
    """The state that `dump` encoded. Raises ValueError if they are not one, or claim another digest."""
    try:
        read = _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(f"not a state snapshot: {error}") from error
    if read.format != FORMAT:
        raise ValueError(f"state snapshot of format {read.format}; this build reads {FORMAT}")
    state = State(
        cluster_id=read.cluster_id,
        machine_version=read.machine_version,
        revision=read.revision,
        hosts=_index(read.hosts, lambda each: each.meta.name),
        namespaces=_index(read.namespaces, lambda each: each.meta.name),
        policies=_index(read.policies, lambda each: each.meta.name),
        microvms=_index(read.microvms, lambda each: each.meta.uid),
        operations=_index(read.operations, lambda each: each.id),
        keys=Map(read.keys),
        finished=_queue(each.id for each in read.operations if each.finished_at is not None),
        key_order=_queue(key for key, _ in read.keys),
    )
    for vm in read.microvms:
        state = reindex_microvm(state, None, vm)
    state = replace(state, digest=full_digest(state))
    if digest_text(state) != read.digest:
        raise ValueError(f"state snapshot says digest {read.digest}, its records give {digest_text(state)}")
    return state


def digest_text(state: State) -> str:
    return f"{state.digest:032x}"


def full_digest(state: State) -> int:
    """The digest reckoned from every record, to check the incremental one."""
    collections: tuple[Map[str, Host] | Map[str, Namespace] | Map[str, PlacementPolicy] | Map[str, MicroVM], ...]
    collections = (state.hosts, state.namespaces, state.policies, state.microvms)
    total = sum(digest_of(key, value) for each in collections for key, value in each.items())
    total += sum(digest_of(key, value) for key, value in state.operations.items())
    total += sum(digest_of(key, value) for key, value in state.keys.items())
    return total % DIGEST_MODULUS


def _values(items: Map[str, Item]) -> list[Item]:
    return [items[key] for key in sorted(items)]


def _index(items: Iterable[Item], key: Callable[[Item], str]) -> Map[str, Item]:
    return Map({key(item): item for item in items})


def _queue(keys: Iterable[str]) -> Queue:
    queue = Queue()
    for key in keys:
        queue = queue.push(key)
    return queue
