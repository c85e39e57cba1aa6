"""What is fuzzed: each target takes bytes, and raises nothing but what its decoder promises.

`samples` are right ones to start from. A target whose data carries a checksum is also fed with changed data under a
right one, because whoever may write that data can reckon checksums, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import msgspec
from support.audited import AuditedMachine
from support.builders import declare_host, declare_microvm, declare_namespace
from support.snapshots import chunks

from controlplane.agent.held import Held, HeldFile
from controlplane.consensus import configuration
from controlplane.consensus.errors import ConsensusError
from controlplane.consensus.framing import DECODE_ERRORS, FrameDecoder, encode_frame
from controlplane.consensus.messages import PROTOCOL_VERSION, Hello, hello_decoder, message_decoder
from controlplane.consensus.records import decoder as records_decoder
from controlplane.consensus.rpc import answer_decoder, request_decoder, stream_decoder
from controlplane.consensus.segments import Header, encode_batch, read_batches, read_header
from controlplane.drivers.qemu import tag
from controlplane.identity.names import IdentityError, parse_uri
from controlplane.identity.tokens import read_tokens
from controlplane.images.names import parse_reference
from controlplane.machine.codec import Loader, View
from controlplane.machine.entry import apply_entry
from controlplane.manifest import FORMAT, Manifest, ManifestError, chunk_ref, decode_manifest, encode_manifest
from controlplane.model.audit import line_of, read_line
from controlplane.model.commands import UnknownEntryError
from controlplane.ports import DriverError, Member
from controlplane.strict_yaml import YamlError, load_all


@dataclass(frozen=True, slots=True)
class Target:
    feed: Callable[[bytes], object]
    raises: tuple[type[Exception], ...]
    """What it may raise."""
    samples: Sequence[bytes]

    def try_one(self, data: bytes) -> None:
        """Raises whatever the target is not allowed to."""
        with suppress(*self.raises):
            self.feed(data)


def _machine() -> AuditedMachine:
    machine = AuditedMachine()
    machine.do(declare_namespace("demo"))
    machine.do(declare_host("h1"))
    machine.do(declare_microvm("web"))
    return machine


_MACHINE = _machine()
_HEADER = View(_MACHINE.state).header()


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _entry(data: bytes) -> None:
    apply_entry(_MACHINE.state, data, index=9, term=1)


def _chunk(data: bytes) -> None:
    loader = Loader(_HEADER)
    loader.add(data)
    loader.finish()


_OF_FRAMES = (message_decoder, hello_decoder, request_decoder, answer_decoder, stream_decoder)


def _frames(data: bytes) -> None:
    for body in FrameDecoder(1 << 16).feed(data):
        for decoder in _OF_FRAMES:
            with suppress(*DECODE_ERRORS):
                decoder.decode(body)


def _journal(data: bytes) -> None:
    path = Path("journal")
    header = read_header(path, data)
    for batch in read_batches(path, data, header, may_be_torn=True):
        with suppress(*DECODE_ERRORS):
            records_decoder.decode(batch.payload)


def _signed_manifest(data: bytes) -> None:
    """`data` as the body of a manifest, under the prefix that `encode_manifest` would give it."""
    decode_manifest(_MANIFEST[:12] + hashlib.sha256(data).digest() + data)


def _in_file(read: Callable[[Path], object]) -> Callable[[bytes], object]:
    def feed(data: bytes) -> None:
        with TemporaryDirectory(dir="/dev/shm") as directory:
            path = Path(directory) / "held-boot.json"
            path.write_bytes(data)
            read(path)

    return feed


def _held(path: Path) -> Held:
    return HeldFile(path.parent, "boot").read(1.0)


_MANIFEST = encode_manifest(Manifest(FORMAT, "test", 1, 9, 2, 9, b"", _HEADER, (chunk_ref("a", b"data"),), 4))
_SEGMENT = Header(number=1, follows=0, first_sequence=1, chain=0, salt=7)
_MEMBERS = configuration.Configuration(1, (Member("n1", "10.0.0.1:7101", "voter"), Member("n2", "x:1", "learner")))
_HELLO = bytes(encode_frame(Hello(PROTOCOL_VERSION, "c", "n1", "n2")))

_TOKENS = b'{"tokens":[{"name":"a","roles":["admin"],"sha256":"' + b"0" * 64 + b'"}]}'
_IMAGE = b"registry:5000/a/kernel:6.1@sha256:" + b"0" * 64
_MARK = str(tag.Tag("i", "c", "u", 7, "ns", "name")).encode()

TARGETS: Mapping[str, Target] = {
    "log entry": Target(_entry, (UnknownEntryError,), _MACHINE.entries),
    "snapshot chunk": Target(_chunk, (ValueError,), chunks(_MACHINE.state)),
    "snapshot header": Target(Loader, (ValueError,), [_HEADER]),
    "audit line": Target(read_line, (ValueError,), [line_of(each) for each in _MACHINE.chain]),
    "peer and socket frames": Target(_frames, (ValueError,), [_HELLO, b"\0\0\0\1\xc0"]),
    "membership": Target(configuration.decode, (ValueError,), [configuration.encode(_MEMBERS)]),
    "journal": Target(_journal, (ConsensusError,), [_SEGMENT.encode() + bytes(encode_batch(7, 1, [])[0])]),
    "manifest": Target(_signed_manifest, (ManifestError,), [_MANIFEST[44:]]),
    "YAML": Target(
        lambda data: load_all(_text(data)),
        (YamlError,),
        [b"kind: Host\nspec: {a: [1, 2.5, true, null]}\n---\nb: 2001-12-14\nc: 0x1f\nd: !!binary aGk=\n", b"1_0: ~\n"],
    ),
    "tokens file": Target(_in_file(read_tokens), (IdentityError,), [_TOKENS]),
    "held lease": Target(_in_file(_held), (), [msgspec.json.encode(Held(ends_s=5.0, ttl_s=10.0))]),
    "certificate name": Target(lambda data: parse_uri(_text(data)), (IdentityError,), [b"flintlock://node/n1"]),
    "image reference": Target(lambda data: parse_reference(_text(data)), (DriverError,), [_IMAGE]),
    "mark of a process": Target(lambda data: tag.parse(_text(data)), (), [_MARK]),
}
