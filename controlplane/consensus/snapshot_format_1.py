"""The snapshot file of format 1, a single checksummed document with the whole state: only read, to be replaced."""

from __future__ import annotations

import hashlib
import struct
import zlib
from pathlib import Path

import msgspec

from controlplane.consensus.framing import DECODE_ERRORS
from controlplane.consensus.stored import unusable

_MAGIC = b"FLSNAPSH"
_FORMAT = 1
_PREFIX = struct.Struct("<8sIII")


class Meta(msgspec.Struct, array_like=True, frozen=True):
    cluster_id: str
    index: int
    term: int
    entry_index: int
    size: int
    sha256: bytes


_decoder = msgspec.msgpack.Decoder(Meta)


def read_format_1(path: Path) -> tuple[Meta, bytes] | None:
    """The snapshot in `path`, verified; None when there is no such file. Raises CorruptDataError."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return None
    if len(raw) < _PREFIX.size:
        raise unusable(path, "it is cut short")
    magic, version, header_bytes, header_crc = _PREFIX.unpack_from(raw)
    if magic != _MAGIC:
        raise unusable(path, "it does not begin as a snapshot does")
    if version != _FORMAT:
        raise unusable(path, f"it has format {version}, this program reads {_FORMAT} in this place")
    data_at = _PREFIX.size + header_bytes
    header = raw[_PREFIX.size : data_at]
    if len(header) != header_bytes or zlib.crc32(header) != header_crc:
        raise unusable(path, "its header's checksum does not match")
    try:
        meta = _decoder.decode(header)
    except DECODE_ERRORS as error:
        raise unusable(path, f"its header is not readable ({error})") from error
    data = raw[data_at:]
    if len(data) != meta.size or hashlib.sha256(data).digest() != meta.sha256:
        raise unusable(path, "its checksum does not match")
    return meta, data
