"""What every snapshot store has to do, as checks that a test calls with a store of its own."""

from __future__ import annotations

import hashlib

import pytest

from controlplane.ports import SnapshotStore, StoreError


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def keep(store: SnapshotStore, name: str, data: bytes) -> None:
    store.put(name, [data], sha256=sha256(data))


def check_round_trip(store: SnapshotStore) -> None:
    for name, data in (("chunks/aa/one", b"1" * 70_000), ("chunks/aa/empty", b""), ("locks/a.b-c_d", b"x")):
        assert not store.exists(name)
        store.put(name, iter([data[:7], data[7:]]), sha256=sha256(data))
        assert store.exists(name)
        assert store.get(name) == store.get(name, sha256=sha256(data)) == data
    assert sorted((each.name, each.size) for each in store.list("chunks")) == [
        ("chunks/aa/empty", 0),
        ("chunks/aa/one", 70_000),
    ]
    assert sorted(each.name for each in store.list("chunks/")) == ["chunks/aa/empty", "chunks/aa/one"]
    assert {each.name for each in store.list("")} == {"chunks/aa/one", "chunks/aa/empty", "locks/a.b-c_d"}
    assert list(store.list("nothing/here")) == []


def check_replaces_and_deletes(store: SnapshotStore) -> None:
    keep(store, "a/b", b"old")
    keep(store, "a/b", b"new")
    assert store.get("a/b") == b"new"
    store.delete("a/b")
    store.delete("a/b")
    assert not store.exists("a/b")


def check_refuses_other_bytes(store: SnapshotStore) -> None:
    """What is not what was promised never becomes visible."""
    with refused("damaged"):
        store.put("chunks/aa/bad", [b"hello"], sha256=sha256(b"world"))
    assert not store.exists("chunks/aa/bad")
    with refused("invalid"):
        store.put("chunks/aa/bad", [b"hello"], sha256="not a hash")
    with refused("not_found") as caught:
        store.get("chunks/aa/bad")
    assert "chunks/aa/bad" in caught.value.message


def check_refuses_names(store: SnapshotStore) -> None:
    for name in ("", "/etc/passwd", "../up", "a/../b", "a//b", ".hidden", "a/.b", "a\0b", "a" * 500, "ä"):
        for call in (store.get, store.exists, store.delete, lambda bad: keep(store, bad, b"")):
            with refused("invalid"):
                call(name)
    with refused("invalid"):
        list(store.list("../"))


def check_bounded(store: SnapshotStore) -> None:
    """A source without end is not collected without end."""
    block = bytes(1 << 20)
    taken = 0

    def endless():
        nonlocal taken
        while True:
            taken += 1
            yield block

    with refused("too_large"):
        store.put("chunks/aa/endless", endless(), sha256=sha256(b""))
    assert taken <= 66
    assert not store.exists("chunks/aa/endless")


class refused:  # noqa: N801 - reads as a sentence
    """`with refused(code)`: StoreError with that code."""

    def __init__(self, code: str) -> None:
        self._code = code
        self._raises = pytest.raises(StoreError)

    def __enter__(self) -> pytest.ExceptionInfo[StoreError]:
        return self._raises.__enter__()

    def __exit__(self, *what: object) -> bool:
        swallowed = self._raises.__exit__(*what)  # type: ignore[arg-type]
        if swallowed:
            assert self._raises.excinfo is not None
            assert self._raises.excinfo.value.code == self._code, self._raises.excinfo.value
        return swallowed
