"""A Table is a map, whatever the order in which it was made, and shares what did not change."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from controlplane.machine.table import BUCKET_BITS, Table, bucket_of

KEYS = st.text(max_size=4) | st.sampled_from(["a", "b", "demo", "uid-1", "uid-2"])


class TableIsADict(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.table: Table[int] = Table()
        self.model: dict[str, int] = {}

    @rule(key=KEYS, value=st.integers())
    def set(self, key: str, value: int) -> None:
        before, old = self.table, dict(self.model)
        self.table = self.table.set(key, value)
        self.model[key] = value
        assert dict(before) == old, "the old version stays"

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        if key in self.model:
            self.table = self.table.delete(key)
            del self.model[key]
        else:
            with pytest.raises(KeyError):
                self.table.delete(key)

    @rule(items=st.lists(st.tuples(KEYS, st.integers()), max_size=4))
    def set_many(self, items: list[tuple[str, int]]) -> None:
        before, old = self.table, dict(self.model)
        self.table = self.table.updated(items)
        self.model.update(items)
        assert dict(before) == old, "the old version stays"

    @rule(data=st.data())
    def delete_many(self, data: st.DataObject) -> None:
        before, old = self.table, dict(self.model)
        keys = data.draw(st.lists(st.sampled_from(sorted(self.model)), unique=True)) if self.model else []
        self.table = self.table.without(keys)
        for key in keys:
            del self.model[key]
        assert dict(before) == old, "the old version stays"
        with pytest.raises(KeyError):
            self.table.without(["not there"])

    @rule(key=KEYS)
    def look_up(self, key: str) -> None:
        assert self.table.get(key) == self.model.get(key)
        assert self.table.get(key, "none") == self.model.get(key, "none")
        assert (key in self.table) == (key in self.model)
        if key in self.model:
            assert self.table[key] == self.model[key]
        else:
            with pytest.raises(KeyError):
                self.table[key]

    @invariant()
    def equal(self) -> None:
        assert len(self.table) == len(self.model)
        assert dict(self.table.items()) == self.model
        assert sorted(self.table) == sorted(self.model)
        assert list(self.table.values()) == [self.model[key] for key in self.table]
        assert all(self.table.buckets.values()), "no bucket is empty"


TestTableIsADict = TableIsADict.TestCase


@given(st.lists(st.tuples(KEYS, st.integers())), st.randoms())
def test_equal_tables_are_equal_in_every_respect(items: list[tuple[str, int]], chance: object) -> None:
    unique = list(dict(items).items())
    one = Table(unique)
    shuffled = list(unique)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    other: Table[int] = Table()
    for key, value in shuffled:
        other = other.set(key, value - 1).set(key, value)
    other = other.set("passing", 1).delete("passing") if "passing" not in other else other
    assert one == other
    assert hash(one) == hash(other)
    assert list(one) == list(other), "the order of iteration, too"
    assert list(one.items()) == list(other.items())


def test_a_change_leaves_every_other_bucket_as_it_is() -> None:
    before = Table((f"k{i}", i) for i in range(1000))
    after = before.set("k5", 0)
    same = [number for number in before.buckets if before.buckets[number] is after.buckets.get(number)]
    assert len(same) == len(before.buckets) - 1
    assert bucket_of("k5") not in same


def test_keys_spread_over_the_buckets_alike_everywhere() -> None:
    assert bucket_of("demo") == 54850
    assert max(map(bucket_of, map(str, range(10_000)))) < 1 << BUCKET_BITS
    assert len({bucket_of(str(i)) for i in range(10_000)}) > 9_000
    assert 3 not in Table([("a", 1)])
    assert Table([("a", 1)]) != {"b": 1}
