"""A map by string keys, in buckets that share structure between versions.

Every change makes a new Table that shares all buckets but one with the old, so identity of a bucket in two versions
says that nothing in it changed: a snapshot finds what it has to write again without anybody keeping account of changes.
A key's bucket is the CRC-32 of its UTF-8 bytes, the same on every node and in every process. A bucket is a dict that
nothing changes any more: it holds few records, and the collector, which knows no records, does not know it either.

Iteration goes by bucket, then by key: the same for equal tables, whatever their history.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, ValuesView
from typing import TypeVar, cast, overload
from zlib import crc32

from immutables import Map

BUCKET_BITS = 16
_SHIFT = 32 - BUCKET_BITS

V = TypeVar("V")
D = TypeVar("D")

Bucket = Mapping[str, V]


def bucket_of(key: str) -> int:
    """The number of a key's bucket, below 2**BUCKET_BITS."""
    return crc32(key.encode()) >> _SHIFT


class Table(Mapping[str, V]):
    """Immutable; `set` and `delete` give another one."""

    __slots__ = ("_buckets", "_size")

    def __init__(self, items: Iterable[tuple[str, V]] = ()) -> None:
        grouped: dict[int, dict[str, V]] = {}
        for key, value in items:
            grouped.setdefault(bucket_of(key), {})[key] = value
        self._buckets: Map[int, Bucket[V]] = Map(grouped)
        self._size = sum(len(bucket) for bucket in grouped.values())

    @classmethod
    def of_buckets(cls, buckets: Map[int, Bucket[V]], size: int) -> Table[V]:
        """The table of `buckets`, none of them empty, that hold `size` values."""
        table = cls.__new__(cls)
        table._buckets = buckets
        table._size = size
        return table

    @property
    def buckets(self) -> Map[int, Bucket[V]]:
        """The buckets that are not empty, by number."""
        return self._buckets

    def set(self, key: str, value: V) -> Table[V]:
        number = crc32(key.encode()) >> _SHIFT
        old = self._buckets.get(number)
        new: Bucket[V] = {key: value} if old is None else {**old, key: value}
        size = self._size + len(new) - (0 if old is None else len(old))
        return self.of_buckets(self._buckets.set(number, new), size)

    def delete(self, key: str) -> Table[V]:
        """Raises KeyError."""
        number = crc32(key.encode()) >> _SHIFT
        new = dict(self._buckets[number])
        del new[key]
        buckets = self._buckets.set(number, new) if new else self._buckets.delete(number)
        return self.of_buckets(buckets, self._size - 1)

    def updated(self, items: Iterable[tuple[str, V]]) -> Table[V]:
        """As `set` of each, but the buckets' map is copied once for all of them."""
        buckets, size = self._buckets.mutate(), self._size
        for key, value in items:
            number = crc32(key.encode()) >> _SHIFT
            old = buckets.get(number)
            new: Bucket[V] = {key: value} if old is None else {**old, key: value}
            size += len(new) - (0 if old is None else len(old))
            buckets[number] = new
        return self.of_buckets(buckets.finish(), size)

    def without(self, keys: Iterable[str]) -> Table[V]:
        """As `delete` of each, likewise. Raises KeyError."""
        buckets, size = self._buckets.mutate(), self._size
        for key in keys:
            number = crc32(key.encode()) >> _SHIFT
            new = dict(buckets[number])
            del new[key]
            if new:
                buckets[number] = new
            else:
                del buckets[number]
            size -= 1
        return self.of_buckets(buckets.finish(), size)

    @overload
    def get(self, key: str, default: None = None) -> V | None: ...
    @overload
    def get(self, key: str, default: V) -> V: ...
    @overload
    def get(self, key: str, default: D) -> V | D: ...
    def get(self, key: str, default: object = None) -> object:
        bucket = self._buckets.get(crc32(key.encode()) >> _SHIFT)
        return default if bucket is None else bucket.get(key, default)

    def __getitem__(self, key: str) -> V:
        bucket = self._buckets.get(crc32(key.encode()) >> _SHIFT)
        if bucket is None:
            raise KeyError(key)
        return bucket[key]

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, str):
            return False
        bucket = self._buckets.get(crc32(key.encode()) >> _SHIFT)
        return bucket is not None and key in bucket

    def __iter__(self) -> Iterator[str]:
        # The inner order depends on Python's random hash of strings; the outer, of small integers, does not.
        for bucket in self._buckets.values():
            yield from sorted(bucket)

    def items(self) -> ItemsView[str, V]:
        return _Items(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def __len__(self) -> int:
        return self._size

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Table):
            theirs = cast("Table[object]", other)
            return self._size == theirs._size and self._buckets == theirs._buckets
        return NotImplemented

    def __hash__(self) -> int:
        return hash((Table, self._size))

    def __repr__(self) -> str:
        return f"Table({dict(self)!r})"


class _Items(ItemsView[str, V]):
    """In the table's order, without looking every key up again."""

    def __init__(self, table: Table[V]) -> None:
        super().__init__(table)
        self._table = table

    def __iter__(self) -> Iterator[tuple[str, V]]:
        for bucket in self._table.buckets.values():
            for key in sorted(bucket):
                yield key, bucket[key]


class _Values(ValuesView[V]):
    def __init__(self, table: Table[V]) -> None:
        super().__init__(table)
        self._table = table

    def __iter__(self) -> Iterator[V]:
        for _, value in _Items(self._table):
            yield value
