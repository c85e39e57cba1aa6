"""What is sealed opens for its purpose with its key, and in no other way."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from controlplane.identity import storage
from controlplane.model.credentials import Sealed
from controlplane.model.types import replace
from controlplane.sealing import KeyRing, SealingError

SECRET = b"-----BEGIN PRIVATE KEY-----"


def test_a_round_trip_never_gives_the_same_bytes_twice() -> None:
    ring = KeyRing.new()
    one, two = ring.seal(SECRET, "ca"), ring.seal(SECRET, "ca")
    assert ring.open(one, "ca") == ring.open(two, "ca") == SECRET
    assert one.box != two.box
    assert one.wrapped != two.wrapped
    assert SECRET not in base64.b64decode(one.box) + base64.b64decode(one.wrapped)


@pytest.mark.parametrize("part", ["wrapped", "box"])
def test_every_changed_byte_is_noticed(part: str) -> None:
    ring = KeyRing.new()
    sealed = ring.seal(SECRET, "ca")
    data = base64.b64decode(getattr(sealed, part))
    for place in range(len(data)):
        changed = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(SealingError, match="it was changed"):
            ring.open(replace(sealed, **{part: base64.b64encode(changed).decode()}), "ca")
    for nonsense in ("", "?", "AAAA"):
        with pytest.raises(SealingError):
            ring.open(replace(sealed, **{part: nonsense}), "ca")


def test_a_secret_does_not_open_for_another_purpose_nor_in_parts_of_another() -> None:
    ring = KeyRing.new()
    sealed, other = ring.seal(SECRET, "ca"), ring.seal(b"x", "ca")
    with pytest.raises(SealingError, match="token does not open"):
        ring.open(sealed, "token")
    with pytest.raises(SealingError):
        ring.open(Sealed(key_id=sealed.key_id, wrapped=other.wrapped, box=sealed.box), "ca")


def test_a_new_key_seals_while_the_old_one_still_opens() -> None:
    old, new = KeyRing.new(), KeyRing.new()
    before = old.seal(SECRET, "ca")
    keys = [*KeyRing.parse(new.document())._keys, *old._keys]
    both = KeyRing(tuple(keys))
    assert both.open(before, "ca") == SECRET
    assert new.open(both.seal(SECRET, "ca"), "ca") == SECRET
    with pytest.raises(SealingError, match=f"sealed with the key {before.key_id}, which this node's key ring lacks"):
        new.open(before, "ca")


def test_the_file_is_the_owners_alone_and_errors_hold_no_key(tmp_path: Path) -> None:
    ring, path = KeyRing.new(), tmp_path / "keys.json"
    storage.create(path, ring.document().encode(), mode=0o600)
    assert KeyRing.load(path).open(ring.seal(SECRET, "ca"), "ca") == SECRET
    path.chmod(0o640)
    with pytest.raises(SealingError, match=r"keys\.json: others than its owner can use it; run: chmod 600"):
        KeyRing.load(path)
    path.chmod(0o600)
    path.write_text('{"version": 1, "keys": [{"id": "a", "key": "c2VjcmV0"}]}')
    with pytest.raises(SealingError, match=r"keys\.json: /keys/0/key: not 32 bytes in base64") as refused:
        KeyRing.load(path)
    assert "c2VjcmV0" not in str(refused.value)
    with pytest.raises(SealingError, match="cannot be read"):
        KeyRing.load(tmp_path / "nowhere")
    assert "key" not in repr(ring._keys[0]).lower().replace("sealingkey", "")


@pytest.mark.parametrize("document", ["", "[]", "{}", '{"version": 2, "keys": []}', '{"version": 1, "keys": []}'])
def test_what_is_no_key_ring_is_refused(document: str) -> None:
    with pytest.raises(SealingError):
        KeyRing.parse(document)
