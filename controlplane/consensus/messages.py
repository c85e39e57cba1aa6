"""What peers say to each other. Every message is a tagged msgpack array; tags are appended, never renumbered.

`round` numbers the leader's heartbeat rounds. A follower echoes it, so a quorum of echoes of a round begun after a
read arrived proves that the leader still led then. Every reply carries the term it was made in; replies of other
terms are ignored. Tags 14 and 15 were used once.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from controlplane.manifest import Hash, Index
from controlplane.ports import Member

PROTOCOL_VERSION = 2


class Hello(msgspec.Struct, tag=0, array_like=True, frozen=True):
    """First frame of a connection, from the dialling side.

    `store` is the id of the sender's disk. `incarnation` is that of its configuration, 0 while it is no member by its
    own log. `address` is where it is dialled. `introduces`: by the sender's configuration, at
    `configuration_index`, both sender and receiver are members. `machine_version` is the newest that its build knows;
    0: of a build that does not say.
    """

    protocol: int
    cluster_id: str
    sender: str
    receiver: str
    store: str = ""
    incarnation: Index = 0
    address: str = ""
    configuration_index: Index = 0
    introduces: bool = False
    machine_version: Index = 0


class HelloReply(msgspec.Struct, tag=1, array_like=True, frozen=True):
    """`refusal` is empty when the connection is accepted. `verdict` says what it means for the refused node."""

    refusal: Annotated[str, msgspec.Meta(max_length=500)]
    verdict: Literal["", "removed", "disk"] = ""
    store: str = ""
    incarnation: Index = 0
    machine_version: Index = 0


class VoteRequest(msgspec.Struct, tag=10, array_like=True, frozen=True):
    """`term` is the term the candidate asks for; with `pre` it has not entered it yet.

    With `handed_over` the leader of the term before asked it to stand, so voters need not stick to that leader.
    """

    term: Index
    last_index: Index
    last_term: Index
    pre: bool
    handed_over: bool = False


class VoteReply(msgspec.Struct, tag=11, array_like=True, frozen=True):
    """`term` is the term asked for when granted, else the voter's own."""

    term: Index
    granted: bool
    pre: bool


class AppendEntries(msgspec.Struct, tag=12, array_like=True, frozen=True):
    """Entries (term, command) that follow `prev_index`. `round` 0 asks for no answer unless the log does not match."""

    term: Index
    prev_index: Index
    prev_term: Index
    commit_index: Index
    round: Index
    entries: list[tuple[Index, bytes]]


class AppendReply(msgspec.Struct, tag=13, array_like=True, frozen=True):
    """Success: durable up to `index`. Refusal: the leader should go on from `index`."""

    term: Index
    success: bool
    index: Index
    round: Index


class Propose(msgspec.Struct, tag=16, array_like=True, frozen=True):
    """A follower asks the leader to append."""

    request: Index
    entry: bytes


class ReadIndex(msgspec.Struct, tag=17, array_like=True, frozen=True):
    """A follower asks the leader for a read index."""

    request: Index


class Answer(msgspec.Struct, tag=18, array_like=True, frozen=True):
    """The leader's answer to a request. `refused` means: certainly not appended, or not the leader.

    `text` says why the leader refused, or may not know, when asking another leader would not help.
    """

    request: Index
    index: Index
    term: Index
    refused: bool
    unknown: bool = False
    text: Annotated[str, msgspec.Meta(max_length=2000)] = ""


class TimeoutNow(msgspec.Struct, tag=19, array_like=True, frozen=True):
    """The leader of `term` asks a voter whose log is level with its own to stand for election at once."""

    term: Index


class StateHash(msgspec.Struct, tag=20, array_like=True, frozen=True):
    """The sender's state hashes as (applied index, hash); comparable with others of the same `format` only."""

    format: Index
    points: Annotated[
        list[tuple[Index, Annotated[str, msgspec.Meta(max_length=128)]]],
        msgspec.Meta(max_length=8),
    ]


class ChangeMember(msgspec.Struct, tag=21, array_like=True, frozen=True):
    """A follower asks the leader to change the membership, or to let `node` ("": the best voter) lead.

    `member` is of use with `add` only. The answer to `transfer` has the new leader for its text.
    """

    request: Index
    what: Literal["add", "promote", "remove", "transfer"]
    node: str
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)]
    member: Member | None = None


class SnapshotOffer(msgspec.Struct, tag=30, array_like=True, frozen=True):
    """The leader has a snapshot for a follower whose next entry is compacted away. `size` is that of the manifest."""

    term: Index
    index: Index
    hash: Hash
    size: Index


class SnapshotFetch(msgspec.Struct, tag=31, array_like=True, frozen=True):
    """The follower asks for the manifest from `offset` on, or for `chunks` by their positions in it.

    Beyond the manifest's end it asks for nothing: it is busy with what came. `installed` once it has what the snapshot
    holds, durably.
    """

    term: Index
    index: Index
    hash: Hash
    offset: Index
    chunks: list[Index]
    installed: bool


class SnapshotData(msgspec.Struct, tag=32, array_like=True, frozen=True):
    """A piece of the manifest at `offset`, or chunks by position."""

    term: Index
    hash: Hash
    offset: Index
    data: bytes
    chunks: list[tuple[Index, bytes]]


Message = (
    VoteRequest
    | VoteReply
    | AppendEntries
    | AppendReply
    | SnapshotOffer
    | SnapshotFetch
    | SnapshotData
    | Propose
    | ReadIndex
    | Answer
    | TimeoutNow
    | StateHash
    | ChangeMember
)

message_decoder = msgspec.msgpack.Decoder(Message)
hello_decoder = msgspec.msgpack.Decoder(Hello)
hello_reply_decoder = msgspec.msgpack.Decoder(HelloReply)
