"""Values survive both encodings, unknowns included, and what does not fit its type is refused by name."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import msgpack
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from provider_shim.framework.codec import Codec, CodecError
from provider_shim.framework.types import (
    BOOL,
    DYNAMIC,
    NUMBER,
    STRING,
    UNKNOWN,
    ListOf,
    MapOf,
    ObjectOf,
    SetOf,
    TupleOf,
    Type,
    from_signature,
    is_wholly_known,
    signature,
    without_unknowns,
)

NAMES = st.text("abcxyz_", min_size=1, max_size=6)
TYPES: st.SearchStrategy[Type] = st.recursive(
    st.sampled_from([STRING, NUMBER, BOOL]),
    lambda inner: st.one_of(
        inner.map(ListOf),
        inner.map(SetOf),
        inner.map(MapOf),
        st.dictionaries(NAMES, inner, max_size=4).map(ObjectOf),
    ),
    max_leaves=6,
)
NUMBERS = st.one_of(st.integers(-(2**80), 2**80), st.floats(allow_nan=False, allow_infinity=False, width=32))


def values(kind: Type, *, unknowns: bool) -> st.SearchStrategy[Any]:
    nothing = [st.none(), st.just(UNKNOWN)] if unknowns else [st.none()]
    match kind:
        case ListOf(element) | SetOf(element):
            inner: st.SearchStrategy[Any] = st.lists(values(element, unknowns=unknowns), max_size=3)
        case MapOf(element):
            inner = st.dictionaries(NAMES, values(element, unknowns=unknowns), max_size=3)
        case ObjectOf(attributes):
            inner = st.fixed_dictionaries({name: values(each, unknowns=unknowns) for name, each in attributes.items()})
        case _:
            inner = {"string": st.text(max_size=8), "number": NUMBERS, "bool": st.booleans()}[signature(kind)]
    return st.one_of(inner, *nothing)


def typed(*, unknowns: bool) -> st.SearchStrategy[tuple[Type, Any]]:
    return TYPES.flatmap(lambda kind: st.tuples(st.just(kind), values(kind, unknowns=unknowns)))


@given(typed(unknowns=True))
def test_msgpack_there_and_back(pair: tuple[Type, Any]) -> None:
    kind, value = pair
    assert Codec(kind).decode_msgpack(Codec(kind).encode_msgpack(value)) == value


@given(typed(unknowns=False))
def test_json_there_and_back(pair: tuple[Type, Any]) -> None:
    kind, value = pair
    assert Codec(kind).decode_json(json.loads(json.dumps(value))) == value


@given(typed(unknowns=True))
def test_nothing_unknown_is_left_after_a_failure(pair: tuple[Type, Any]) -> None:
    kind, value = pair
    known = without_unknowns(value)
    assert is_wholly_known(known)
    assert (known == value) == is_wholly_known(value)
    Codec(kind).encode_msgpack(known)


@given(TYPES)
def test_signatures_name_types(kind: Type) -> None:
    assert from_signature(json.loads(json.dumps(signature(kind)))) == kind


@given(st.binary(max_size=40))
@example(b"\x81\x90\x01")
@example(b"\x82\xc4\x01a\x01\xa1b\x01")
@example(b"\x81\x01\x01")
def test_stranger_bytes_are_refused_and_never_crash(data: bytes) -> None:
    with contextlib.suppress(CodecError):
        Codec(ObjectOf({"a": STRING, "b": ListOf(NUMBER)})).decode_msgpack(data)


def test_unknowns_are_extension_0_and_refined_ones_are_read() -> None:
    assert Codec(STRING).encode_msgpack(UNKNOWN) == b"\xd4\x00\x00"
    refined = msgpack.packb(msgpack.ExtType(12, b"\x81\x01\xc2"))
    assert Codec(STRING).decode_msgpack(refined) is UNKNOWN


def test_dynamic_values_carry_their_type() -> None:
    value = {"a": [1, "x", True], "b": None}
    assert Codec(DYNAMIC).decode_msgpack(Codec(DYNAMIC).encode_msgpack(value)) == value
    assert Codec(DYNAMIC).decode_json({"type": ["tuple", ["string", "bool"]], "value": ["x", True]}) == ["x", True]


def test_long_numbers_travel_as_text() -> None:
    assert msgpack.unpackb(Codec(NUMBER).encode_msgpack(2**70)) == str(2**70)
    assert Codec(NUMBER).decode_msgpack(msgpack.packb("1.5")) == 1.5
    assert Codec(NUMBER).decode_msgpack(msgpack.packb(3.0)) == 3


@pytest.mark.parametrize(
    ("kind", "raw", "place"),
    [
        (STRING, 1, "value"),
        (NUMBER, True, "value"),
        (NUMBER, "many", "value"),
        (BOOL, "true", "value"),
        (ListOf(STRING), {"a": "b"}, "value"),
        (ListOf(STRING), ["a", 2], "[1]"),
        (MapOf(NUMBER), {"k": []}, "k"),
        (ObjectOf({"a": ObjectOf({"b": STRING})}), {"a": {"b": 1}}, "a.b"),
        (ObjectOf({"a": STRING}), {"stray": 1}, "stray"),
        (TupleOf((STRING,)), [], "value"),
        (DYNAMIC, {"type": "string"}, "value"),
    ],
)
def test_what_does_not_fit_is_refused_by_place(kind: Type, raw: Any, place: str) -> None:
    with pytest.raises(CodecError) as refused:
        Codec(kind).decode_json(raw)
    assert str(refused.value).startswith(f"{place}:")
