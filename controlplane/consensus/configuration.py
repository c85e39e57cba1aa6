"""Who belongs to the cluster, as a value in the log, and which changes of it are allowed. Pure.

A configuration is an entry of the log and takes effect where it is appended, before it is committed. That is safe
because one change adds or removes at most one voter, so any majority before it and any majority after it share a node,
and because the next change waits until this one is committed (Ongaro's thesis, 4.1). An id that left is retired for
good: whoever comes back with its name has another disk, or a log from before it was removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import msgspec

from controlplane.consensus.framing import DECODE_ERRORS
from controlplane.consensus.settings import NODE_ID, is_wildcard, parse_address
from controlplane.ports import Member, RefusedError

MAX_MEMBERS = 15
FOUNDING_INDEX = 1
"""Where the founding configuration is said to stand: at the first no-op, which every log begins with."""
_MAX_ADDRESS = 255


class Configuration(msgspec.Struct, frozen=True):
    """`members` in the order of their ids. `incarnation` counts from 1."""

    incarnation: int
    members: tuple[Member, ...]
    retired: tuple[str, ...] = ()

    @property
    def voters(self) -> frozenset[str]:
        return frozenset(member.node for member in self.members if member.role == "voter")

    @property
    def learners(self) -> frozenset[str]:
        return frozenset(member.node for member in self.members if member.role == "learner")

    def find(self, node: str) -> Member | None:
        return next((member for member in self.members if member.node == node), None)

    def addresses(self, without: str) -> dict[str, str]:
        """The raft address of every member but `without`."""
        return {member.node: member.address for member in self.members if member.node != without}


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Configuration)


def majority(count: int) -> int:
    """How many of `count` voters are one."""
    return count // 2 + 1


def founding(node: str, address: str, peers: Mapping[str, str]) -> Configuration:
    """The first configuration: `node` and its `peers` (id to address), all voters."""
    members = [Member(node, address, "voter"), *(Member(peer, at, "voter") for peer, at in peers.items())]
    return Configuration(1, _ordered(members))


def encode(configuration: Configuration) -> bytes:
    return _encoder.encode(configuration)


def decode(data: bytes) -> Configuration:
    """Raises ValueError when `data` is not a configuration that could have been made here."""
    try:
        configuration = _decoder.decode(data)
    except DECODE_ERRORS as error:
        raise ValueError(f"not a configuration: {error}") from None
    names = [member.node for member in configuration.members]
    if configuration.incarnation < 1 or not configuration.voters or names != sorted(set(names)):
        raise ValueError("not a configuration: members must be ordered, known once, and one of them a voter")
    if set(names) & set(configuration.retired):
        raise ValueError("not a configuration: a retired id is a member")
    return configuration


# -- what an operator may ask for --------------------------------------------------------------------------------------


def with_member(configuration: Configuration, member: Member) -> Configuration:
    """`member` added as a learner; one that is there already keeps its role and gets the given addresses.

    Raises RefusedError.
    """
    node = member.node
    if not NODE_ID.fullmatch(node):
        raise RefusedError(f"node: {node!r} is not a node id (1-63 of a-z 0-9 . _ -)")
    if node in configuration.retired:
        raise RefusedError(
            f"{node} was removed from this cluster, and a removed id is never accepted again: its old log may hold "
            "other entries and votes. Add the machine under a new id, with an empty data directory and its own "
            "certificate"
        )
    present = configuration.find(node)
    merged = Member(
        node,
        member.address or (present.address if present else ""),
        present.role if present else "learner",
        member.api or (present.api if present else ""),
        member.gateway or (present.gateway if present else ""),
        present.store if present else "",
    )
    _check_addresses(configuration, merged)
    if present is None and len(configuration.members) >= MAX_MEMBERS:
        raise RefusedError(f"there are {MAX_MEMBERS} members already, and no more are supported: remove one first")
    others = [other for other in configuration.members if other.node != node]
    return msgspec.structs.replace(configuration, members=_ordered([*others, merged]))


def promoted(configuration: Configuration, node: str) -> Configuration:
    """The learner `node` as a voter; unchanged when it is one. Raises RefusedError."""
    present = _known(configuration, node)
    others = [other for other in configuration.members if other.node != node]
    return msgspec.structs.replace(configuration, members=_ordered([*others, replace(present, role="voter")]))


def removed(configuration: Configuration, node: str) -> Configuration:
    """Without `node`, whose id is retired; unchanged when it is retired already. Raises RefusedError."""
    if node in configuration.retired:
        return configuration
    _known(configuration, node)
    if configuration.voters == frozenset({node}):
        raise RefusedError(
            f"{node} is the only voter: without it the cluster is gone. Add and promote another node first, or stop it"
        )
    others = tuple(other for other in configuration.members if other.node != node)
    return msgspec.structs.replace(configuration, members=others, retired=(*configuration.retired, node))


def alone(configuration: Configuration, node: str, address: str) -> Configuration:
    """After the loss of a quorum: `node` alone in the next incarnation, all other ids retired."""
    present = configuration.find(node)
    survivor = Member(node, address, "voter") if present is None else replace(present, role="voter", address=address)
    gone = [other.node for other in configuration.members if other.node != node]
    return Configuration(
        configuration.incarnation + 1, (survivor,), tuple(dict.fromkeys([*configuration.retired, *gone]))
    )


def with_stores(configuration: Configuration, stores: Mapping[str, str]) -> Configuration:
    """With the disk ids that are known now, where the configuration has none yet."""
    members = (m if m.store else replace(m, store=stores.get(m.node, "")) for m in configuration.members)
    return msgspec.structs.replace(configuration, members=tuple(members))


def check_step(old: Configuration, new: Configuration) -> None:
    """Raises ValueError unless `new` may follow `old`: the rule that safety rests on, whatever was asked for."""
    if new.incarnation != old.incarnation:
        raise ValueError("the incarnation changes only offline")
    if len(old.voters ^ new.voters) > 1:
        raise ValueError("more than one voter changes at once")
    if not new.voters:
        raise ValueError("no voter is left")
    before, after = {m.node for m in old.members}, {m.node for m in new.members}
    if set(new.retired) != set(old.retired) | (before - after):
        raise ValueError("exactly the ids that leave are retired")
    if after & set(new.retired):
        raise ValueError("a retired id comes back")


def _known(configuration: Configuration, node: str) -> Member:
    present = configuration.find(node)
    if present is None:
        was = " any more: it was removed" if node in configuration.retired else ""
        known = ", ".join(member.node for member in configuration.members)
        raise RefusedError(f"{node} is not a member of this cluster{was}; the members are {known}")
    return present


def _check_addresses(configuration: Configuration, member: Member) -> None:
    for field, address in (("address", member.address), ("api", member.api), ("gateway", member.gateway)):
        if not address and field != "address":
            continue
        if len(address) > _MAX_ADDRESS:
            raise RefusedError(f"{field}: longer than {_MAX_ADDRESS} characters")
        try:
            parse_address(field, address)
        except ValueError as error:
            raise RefusedError(str(error)) from None
        if is_wildcard(address):
            raise RefusedError(
                f"{field}: {address} is where a server listens; give the address at which others dial it"
            )
        for other in configuration.members:
            if other.node != member.node and getattr(other, field) == address:
                raise RefusedError(f"{field}: {address} is {other.node}'s already")


def _ordered(members: Iterable[Member]) -> tuple[Member, ...]:
    return tuple(sorted(members, key=lambda member: member.node))
