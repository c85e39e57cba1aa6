"""Who may connect to this node, and what is known of them: by the log's configuration, and by the disk they came with.

A member that comes back without its disk forgot its votes and what it acknowledged, so it is known by the random id
that its data directory got when it was made: every member remembers which id belongs to which peer, durably and from
the first contact on, and the configuration carries those that were known when it was written. Members of another
incarnation of the cluster are refused, and removed ones are told so.

A member may lag so far behind that it has not heard of a newer one yet, whose votes or entries it needs: a node that
its certificate vouches for, and by whose newer configuration both belong to the cluster, is let in as a guest until
the log says what it is. A guest counts for nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from controlplane.consensus.configuration import FOUNDING_INDEX, Configuration
from controlplane.consensus.errors import ConsensusError, LostDiskError, RemovedError
from controlplane.consensus.messages import PROTOCOL_VERSION, Hello, HelloReply
from controlplane.consensus.settings import is_wildcard, parse_address
from controlplane.model.commands.versions import MACHINE_VERSION

_log = logging.getLogger(__name__)

_MAX_GUESTS = 16
_MAX_ADDRESS = 255


def _nothing(*_: object) -> None:
    """For a roster that only knows its contacts."""


class Roster:
    """`contacts` are the peers of the settings; `stores` the disks met so far, `incarnation` that of the cluster this
    node belongs to, 0 before it met one. `remember(peer, store)` makes a first contact durable and `belong` the
    incarnation; `expelled` is told what ends this node's membership. Not thread-safe.
    """

    def __init__(
        self,
        *,
        node: str,
        cluster_id: str,
        contacts: Mapping[str, str],
        address: str = "",
        store: str = "",
        stores: Mapping[str, str] | None = None,
        incarnation: int = 0,
        remember: Callable[[str, str], None] = _nothing,
        belong: Callable[[int], None] = _nothing,
        expelled: Callable[[ConsensusError], None] = _nothing,
    ) -> None:
        self._node = node
        self._cluster_id = cluster_id
        self._contacts = dict(contacts)
        self._address = address
        self._store = store
        self._stores = dict(stores or {})
        self._incarnation = incarnation
        self._remember = remember
        self._belong = belong
        self._expelled = expelled
        self._current: Configuration | None = None
        self._index = 0
        self._committed: Configuration | None = None
        self._guests: dict[str, tuple[str, int]] = {}
        self._said: dict[str, str] = {}
        self._machine_versions: dict[str, int] = {}

    def update(self, current: Configuration | None, index: int, committed: Configuration | None) -> None:
        """The log's newest configuration, where it stands, and the newest committed one."""
        self._current, self._index, self._committed = current, index, committed
        self._guests = {peer: (at, claimed) for peer, (at, claimed) in self._guests.items() if claimed > index}
        if current is not None and self._is_member:
            self._belong_to(current.incarnation)

    @property
    def stores(self) -> Mapping[str, str]:
        """The disks that are known, this node's included."""
        return {**self._stores, self._node: self._store}

    @property
    def incarnation(self) -> int:
        """That of the cluster this node belongs to; 0 before it met one.

        While it reads the log of a cluster that was recovered, the configurations it passes are of earlier ones.
        """
        return self._incarnation

    def machine_version(self, peer: str) -> int:
        """The newest that the build of `peer` knew at its last introduction; 0 while that is not known."""
        return self._machine_versions.get(peer, 0)

    @property
    def _is_member(self) -> bool:
        """Whether this node is one by its own log."""
        return self._current is not None and self._current.find(self._node) is not None

    def addresses(self) -> dict[str, str]:
        """Whom to dial and whom to let in, with their addresses."""
        known: dict[str, str] = {}
        # Who is being removed stays connected until that is certain.
        for configuration in (self._committed, self._current):
            if configuration is not None:
                known |= configuration.addresses(self._node)
        for peer, address in self._contacts.items():
            # The founders never agreed on addresses: each node's own settings say where it finds the others. And one
            # that listens everywhere and did not say where it is dialled has none that is of use to others.
            if peer in known and (self._index == FOUNDING_INDEX or is_wildcard(known[peer])):
                known[peer] = address
        if not self._is_member:
            known = {**self._contacts, **known}
        return {**known, **{peer: address for peer, (address, _) in self._guests.items() if peer not in known}}

    def candidates(self, peer: str) -> tuple[str, ...]:
        """Where `peer` may be found: where it belongs by `addresses`, by the settings, and by its own words.

        The log may be out of date when nodes moved, and a majority of them may be needed to bring it up to date.
        """
        found = (self.addresses().get(peer), self._contacts.get(peer), self._said.get(peer))
        return tuple(dict.fromkeys(address for address in found if address))

    # -- introductions -------------------------------------------------------------------------------------------------

    def hello(self, receiver: str) -> Hello:
        introduces = self._is_member and self._current is not None and self._current.find(receiver) is not None
        return Hello(
            PROTOCOL_VERSION,
            self._cluster_id,
            self._node,
            receiver,
            self._store,
            self._incarnation,
            self._address,
            self._index,
            introduces,
            MACHINE_VERSION,
        )

    def judge(self, hello: Hello) -> HelloReply:
        """The answer to a node whose certificate was checked. Letting one in may add a guest or remember its disk."""
        sender, mine = hello.sender, self.incarnation
        if hello.cluster_id != self._cluster_id:
            return HelloReply("another cluster")
        if hello.incarnation and mine and hello.incarnation != mine:
            return HelloReply(self._other_incarnation(sender, hello.incarnation))
        if self._committed is not None and sender in self._committed.retired:
            return HelloReply(f"{sender} was removed from the cluster; a removed id never comes back", "removed")
        known = sender in self.addresses()
        if not known and not self._introduced(hello):
            return HelloReply("not a member of this cluster; to make it one, start it with raft.join and add it")
        if self._has_another_disk(sender, hello.store):
            return HelloReply(_lost_disk(sender), "disk")
        self._meet(sender, hello.store)
        self._machine_versions[sender] = hello.machine_version
        if hello.introduces and hello.incarnation and not mine:
            # From now on it may send entries, and those of another incarnation would not go with them.
            self._belong_to(hello.incarnation)
        if _can_be_dialled(hello.address):
            self._said[sender] = hello.address
        if not known:
            self._guests[sender] = (hello.address, hello.configuration_index)
        return HelloReply("", "", self._store, self._incarnation, MACHINE_VERSION)

    def examine(self, peer: str, reply: HelloReply) -> str:
        """Why this node should not talk to the `peer` that welcomed it; empty when it should."""
        mine = self.incarnation
        if reply.incarnation and mine and reply.incarnation != mine:
            return self._other_incarnation(peer, reply.incarnation)
        if self._has_another_disk(peer, reply.store):
            return _lost_disk(peer)
        self._meet(peer, reply.store)
        self._machine_versions[peer] = reply.machine_version
        return ""

    def refused(self, peer: str, reply: HelloReply) -> None:
        """`peer` refused this node."""
        if reply.verdict == "removed":
            self._expelled(
                RemovedError(
                    f"{peer} says that {self._node} was removed from the cluster. To use this machine again, empty its "
                    "data directory and add it under a new id"
                )
            )
        elif reply.verdict == "disk":
            self._expelled(
                LostDiskError(
                    f"{peer} knows {self._node} with another disk: this data directory is not the one it had. Without "
                    f"its votes and entries it must not take part as {self._node} again. Remove {self._node} from the "
                    "cluster and add this machine under a new id"
                )
            )

    def _introduced(self, hello: Hello) -> bool:
        """Whether a node this one does not know yet may well be a member by a newer configuration."""
        newer = hello.introduces and hello.configuration_index > self._index
        return newer and _can_be_dialled(hello.address) and len(self._guests) < _MAX_GUESTS

    def _has_another_disk(self, peer: str, store: str) -> bool:
        expected = self._expected_store(peer)
        return bool(store and expected and store != expected)

    def _expected_store(self, peer: str) -> str:
        member = self._current.find(peer) if self._current is not None else None
        return (member.store if member is not None else "") or self._stores.get(peer, "")

    def _meet(self, peer: str, store: str) -> None:
        if store and self._stores.get(peer) != store:
            self._stores[peer] = store
            _log.info("%s: met %s with the disk %s", self._node, peer, store)
            self._remember(peer, store)

    def _belong_to(self, incarnation: int) -> None:
        if incarnation != self._incarnation:
            self._incarnation = incarnation
            self._belong(incarnation)

    def _other_incarnation(self, peer: str, incarnation: int) -> str:
        return (
            f"{peer} belongs to incarnation {incarnation} of the cluster, {self._node} to {self.incarnation}: one of "
            "them was recovered or restored without the other. Their logs never merge; empty the data directory of "
            "the one that is out of date and add it under a new id"
        )


def _can_be_dialled(address: str) -> bool:
    if len(address) > _MAX_ADDRESS:
        return False
    try:
        parse_address("address", address)
    except ValueError:
        return False
    return not is_wildcard(address)


def _lost_disk(peer: str) -> str:
    return f"node {peer} came back with an empty or another disk: remove it and add it under a new id"
