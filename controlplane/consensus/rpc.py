"""What front processes and the raft process say over the private unix socket, in the frames of `framing`.

A connection either carries numbered calls and their answers in any order, or, once `Follow` was sent, one stream of
entries read at the front's own pace. Tags are appended, never renumbered; both ends are of the same release.
"""

from __future__ import annotations

import msgspec

from controlplane.ports import LogStatus, Member

MAX_FRAME_BYTES = 72 << 20


class AppendCall(msgspec.Struct, tag=0, array_like=True, frozen=True):
    call: int
    entry: bytes
    timeout_s: float


class ReadIndexCall(msgspec.Struct, tag=1, array_like=True, frozen=True):
    call: int
    timeout_s: float


class StatusCall(msgspec.Struct, tag=2, array_like=True, frozen=True):
    call: int


class Follow(msgspec.Struct, tag=3, array_like=True, frozen=True):
    after: int


class AddMemberCall(msgspec.Struct, tag=4, array_like=True, frozen=True):
    call: int
    member: Member
    timeout_s: float


class PromoteMemberCall(msgspec.Struct, tag=5, array_like=True, frozen=True):
    call: int
    node: str
    timeout_s: float


class RemoveMemberCall(msgspec.Struct, tag=6, array_like=True, frozen=True):
    call: int
    node: str
    timeout_s: float


class TransferCall(msgspec.Struct, tag=7, array_like=True, frozen=True):
    call: int
    target: str | None
    timeout_s: float


class ConfirmLeadershipCall(msgspec.Struct, tag=8, array_like=True, frozen=True):
    call: int
    timeout_s: float


AdminCall = AddMemberCall | PromoteMemberCall | RemoveMemberCall | TransferCall
Request = AppendCall | ReadIndexCall | ConfirmLeadershipCall | StatusCall | Follow | AdminCall


class AppendAnswer(msgspec.Struct, tag=0, array_like=True, frozen=True):
    call: int
    index: int
    term: int


class ReadIndexAnswer(msgspec.Struct, tag=1, array_like=True, frozen=True):
    call: int
    index: int


class ConfirmLeadershipAnswer(msgspec.Struct, tag=8, array_like=True, frozen=True):
    call: int
    index: int
    term: int
    incarnation: int


class StatusAnswer(msgspec.Struct, tag=2, array_like=True, frozen=True):
    call: int
    status: LogStatus


class Failed(msgspec.Struct, tag=3, array_like=True, frozen=True):
    """`error` is one of the names in `ERRORS`."""

    call: int
    error: str
    text: str


class Entries(msgspec.Struct, tag=4, array_like=True, frozen=True):
    """Consecutive committed entries as (index, term, data)."""

    entries: list[tuple[int, int, bytes]]


class SnapshotBegin(msgspec.Struct, tag=5, array_like=True, frozen=True):
    """A state replaces what was followed so far; `chunks` of it follow in SnapshotChunks."""

    index: int
    term: int
    header: bytes
    chunks: int


class SnapshotChunks(msgspec.Struct, tag=6, array_like=True, frozen=True):
    chunks: list[bytes]


class DoneAnswer(msgspec.Struct, tag=7, array_like=True, frozen=True):
    """An AdminCall was carried out. `leader` is the new leader of a TransferCall, else empty."""

    call: int
    leader: str = ""


Answer = AppendAnswer | ReadIndexAnswer | ConfirmLeadershipAnswer | StatusAnswer | Failed | DoneAnswer
StreamItem = Entries | SnapshotBegin | SnapshotChunks

request_decoder = msgspec.msgpack.Decoder(Request)
answer_decoder = msgspec.msgpack.Decoder(Answer)
stream_decoder = msgspec.msgpack.Decoder(StreamItem)
