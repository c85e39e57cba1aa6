"""A manifest comes back as it was written, or is refused with what is wrong; a chunk is what its name says."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.manifest import (
    FORMAT,
    MAX_CHUNK_BYTES,
    MAX_SNAPSHOT_BYTES,
    ChunkRef,
    Manifest,
    ManifestError,
    chunk_ref,
    decode_manifest,
    encode_manifest,
    manifest_hash,
    verify_chunk,
)


def manifest(*chunks: bytes, **fields: object) -> Manifest:
    refs = tuple(chunk_ref(f"part/{number}", data) for number, data in enumerate(chunks))
    whole = Manifest(FORMAT, "c", 1, 7, 2, 6, b"members", b"header", refs, sum(map(len, chunks)))
    return msgspec.structs.replace(whole, **fields)


@given(st.lists(st.binary(max_size=50), max_size=5), st.binary(max_size=30))
def test_a_manifest_comes_back_and_equal_ones_are_equal_bytes(chunks: list[bytes], header: bytes) -> None:
    one, other = manifest(*chunks, header=header), manifest(*chunks, header=header)
    data = encode_manifest(one)
    assert decode_manifest(data) == one
    assert encode_manifest(other) == data
    assert manifest_hash(data) == manifest_hash(bytearray(data))


def test_any_changed_byte_is_noticed() -> None:
    data = encode_manifest(manifest(b"a", b"b"))
    for at in range(len(data)):
        with pytest.raises(ManifestError):
            decode_manifest(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
    for size in range(len(data)):
        with pytest.raises(ManifestError):
            decode_manifest(data[:size])


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(ManifestError, match="does not begin as"):
        decode_manifest(b"?" * 100)
    with pytest.raises(ManifestError, match=f"format 3, this program reads {FORMAT}"):
        decode_manifest(encode_manifest(manifest(format=3)))
    with pytest.raises(ManifestError, match="its chunks have 2 bytes, the manifest says 3"):
        decode_manifest(encode_manifest(manifest(b"ab", size=3)))
    huge = tuple(ChunkRef("k", bytes(32), MAX_CHUNK_BYTES) for _ in range(MAX_SNAPSHOT_BYTES // MAX_CHUNK_BYTES + 1))
    with pytest.raises(ManifestError, match=f"at most {MAX_SNAPSHOT_BYTES} are accepted"):
        decode_manifest(encode_manifest(manifest(chunks=huge, size=MAX_CHUNK_BYTES * len(huge))))
    with pytest.raises(ManifestError, match="not readable"):
        decode_manifest(encode_manifest(msgspec.structs.replace(manifest(), chunks=(ChunkRef("k", b"short", 1),))))


def test_a_chunk_is_what_its_name_says() -> None:
    ref = chunk_ref("hosts/1/0", b"data")
    assert ref.name == "3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7"
    verify_chunk(ref, b"data")
    with pytest.raises(ManifestError, match=r"chunk 3a6e.* \(hosts/1/0\) has 3 bytes, 4 are needed"):
        verify_chunk(ref, b"dat")
    with pytest.raises(ManifestError, match=r"\(hosts/1/0\) does not match its checksum"):
        verify_chunk(ref, b"dataX"[1:])
