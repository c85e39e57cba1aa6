"""What a snapshot is, wherever it lies: a manifest and the chunks it lists, each named by the SHA-256 of its bytes.

A chunk holds a small part of the state, the same part for equal states, so two snapshots share every chunk whose part
did not change, and whoever holds one lacks little of the other. The manifest says where in the log the snapshot
stands and which chunks make it up; it is stored, sent, backed up and verified as one checksummed piece. What the
header and the chunks hold is the replicated state's own matter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

import msgspec

FORMAT = 2
"""Format 1 was a single file with the whole state."""
MAX_CHUNK_BYTES = 8 << 20
MAX_MANIFEST_BYTES = 64 << 20
MAX_SNAPSHOT_BYTES = 64 << 30
MAX_INCARNATION = 1 << 32

_MAGIC = b"FLMANIFT"
_HASH_BYTES = 32
_PREFIX_BYTES = len(_MAGIC) + 4 + _HASH_BYTES

Index = Annotated[int, msgspec.Meta(ge=0, le=2**62)]
Hash = Annotated[bytes, msgspec.Meta(min_length=_HASH_BYTES, max_length=_HASH_BYTES)]


class ManifestError(ValueError):
    """A manifest or a chunk is not what it claims to be; the message says what is wrong."""


@dataclass(frozen=True, slots=True)
class StatePart:
    """A part of a state that is written as one chunk, or as several when it is large."""

    key: str
    identity: tuple[object, ...]
    """What it is made of. A part with the same key and the very same objects in another view has the same chunks."""
    encode: Callable[[], list[bytes]]
    """Its chunks, each at most MAX_CHUNK_BYTES. May be called in any thread."""


class ChunkRef(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One chunk of a snapshot."""

    key: Annotated[str, msgspec.Meta(max_length=100)]
    """Which part of the state it holds, in the state's own words; the parts of a large one follow each other."""
    sha256: Hash
    size: Annotated[int, msgspec.Meta(ge=0, le=MAX_CHUNK_BYTES)]

    @property
    def name(self) -> str:
        """The chunk's name: 64 lower-case hexadecimal digits."""
        return self.sha256.hex()


class Manifest(msgspec.Struct, array_like=True, frozen=True):
    """Where a snapshot stands and what it is made of."""

    format: int
    cluster_id: Annotated[str, msgspec.Meta(max_length=128)]
    incarnation: Index
    """Raised by quorum recovery and restore: members of another incarnation are another cluster."""
    index: Index
    term: Index
    entry_index: Index
    """The last index at or below `index` whose entry the state got; those between are the engine's own."""
    configuration: bytes
    """The members at `index`, as `consensus` encodes them; empty while they are those of the settings."""
    header: bytes
    """What the state needs besides its chunks, as the state encodes it."""
    chunks: tuple[ChunkRef, ...]
    size: Index
    """Bytes of all chunks."""
    configuration_index: Index = 0
    """Where in the log that configuration stands."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Manifest)


def chunk_ref(key: str, data: bytes | bytearray) -> ChunkRef:
    return ChunkRef(key, hashlib.sha256(data).digest(), len(data))


def verify_chunk(ref: ChunkRef, data: bytes | bytearray) -> None:
    """Raises ManifestError unless `data` is exactly the chunk that `ref` names."""
    if len(data) != ref.size:
        raise ManifestError(f"chunk {ref.name} ({ref.key}) has {len(data)} bytes, {ref.size} are needed")
    if hashlib.sha256(data).digest() != ref.sha256:
        raise ManifestError(f"chunk {ref.name} ({ref.key}) does not match its checksum")


def encode_manifest(manifest: Manifest) -> bytes:
    """The manifest as it is stored and sent; equal manifests give equal bytes."""
    body = _encoder.encode(manifest)
    return _MAGIC + manifest.format.to_bytes(4, "little") + hashlib.sha256(body).digest() + body


def manifest_hash(data: bytes | bytearray) -> bytes:
    """The SHA-256 that identifies an encoded manifest, and with it the whole snapshot. Raises ManifestError."""
    if len(data) < _PREFIX_BYTES or not data.startswith(_MAGIC):
        raise ManifestError("it does not begin as a snapshot's manifest does")
    return bytes(data[_PREFIX_BYTES - _HASH_BYTES : _PREFIX_BYTES])


def decode_manifest(data: bytes | bytearray) -> Manifest:
    """The manifest that `encode_manifest` wrote, verified as such. Raises ManifestError."""
    expected = manifest_hash(data)
    version = int.from_bytes(data[len(_MAGIC) : len(_MAGIC) + 4], "little")
    if version != FORMAT:
        raise ManifestError(f"it has format {version}, this program reads {FORMAT}")
    body = memoryview(data)[_PREFIX_BYTES:]
    if hashlib.sha256(body).digest() != expected:
        raise ManifestError("the manifest does not match its checksum")
    try:
        manifest = _decoder.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ManifestError(f"the manifest is not readable ({error})") from error
    if manifest.format != version:
        raise ManifestError(f"the manifest says format {manifest.format} inside and {version} outside")
    total = sum(ref.size for ref in manifest.chunks)
    if total != manifest.size:
        raise ManifestError(f"its chunks have {total} bytes, the manifest says {manifest.size}")
    if total > MAX_SNAPSHOT_BYTES:
        raise ManifestError(f"a snapshot of {total} bytes; at most {MAX_SNAPSHOT_BYTES} are accepted")
    return manifest
