"""The published and measured faults of PySyncObj 0.3.17: each happens with the package as shipped, and the same events
do no harm with ours. docs/raft-faults.md lists them.

The stock half of a test asserts the fault itself, so that a release that mends it is noticed here.
"""

from __future__ import annotations

import logging
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pysyncobj import SyncObj, SyncObjConf, journal, replicated
from simulation.raft.scripted import ELECTION_S, HEARTBEAT_S, Member, Ours, Script, Stock, StockList, restore, script
from unit.consensus.support import ListState

from controlplane.consensus.configuration import removed
from controlplane.consensus.errors import CorruptDataError, SafetyViolationError
from controlplane.ports import RefusedError

# PySyncObj leaves the file it reads its term from open.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

BIG = 40_000
"""Bytes of an entry of which two fill PySyncObj's default batch."""


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    """PySyncObj writes its own despair to the log."""
    logging.getLogger("pysyncobj").setLevel(logging.CRITICAL + 1)
    yield
    logging.getLogger("pysyncobj").setLevel(logging.NOTSET)


def big(letter: str) -> bytes:
    return letter.encode() * BIG


# -- T1: entries are deleted without a conflict ------------------------------------------------------------------------


def truncation(cluster: Script) -> None:
    """Three members, no message repeated or overtaken. The leader fails while one follower is slow."""
    cluster.elect("a", "b", "c")
    cluster.exchange("a", "b", "c")
    cluster.propose("a", b"x3")
    cluster.propose("a", big("p"), big("q"), big("r"), big("s"))
    # The follower's answer to the first message reaches the leader after the leader has sent the others, ...
    cluster.deliver("a", "b", 1)
    cluster.deliver("b", "a", 1)
    # ... so the leader sends them again. What it sent first is acknowledged by then, hence committed.
    cluster.elapse(HEARTBEAT_S * 1.1)
    cluster.tick("a")
    sent_before = 2
    cluster.deliver("a", "b", sent_before)
    cluster.deliver("b", "a")
    cluster.tick("a")
    assert cluster.told[big("s")], "the client is told that its write is safe"
    # The first repetition arrives, then the leader's machine is gone.
    cluster.deliver("a", "b", 1)
    cluster.stop("a")
    cluster.elect("b", "c")
    cluster.exchange("b", "c")
    cluster.start("a")
    cluster.exchange("a", "b", "c")


def test_t1_stock_deletes_acknowledged_entries_without_a_conflict(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path) as cluster:
        truncation(cluster)
        faults = cluster.faults()
    assert any("is lost on" in fault for fault in faults), faults


def test_t1_ours_keeps_them(tmp_path: Path) -> None:
    with script(Ours, "abc", tmp_path) as cluster:
        truncation(cluster)
        assert cluster.faults() == []
        assert cluster.members["c"].values[-1] == big("s")


# -- T2: an acknowledgement of another term commits --------------------------------------------------------------------


def stale_acknowledgement(cluster: Script) -> None:
    """Five members; what b says to a is slow, and stays in order."""
    cluster.elect("a", "c", "d", "e")
    cluster.exchange("a", "c", "d", "e")
    cluster.deliver("a", "b")
    cluster.lose("b", "a")
    # b acknowledges entries that only a and b have; the answer is on its way for a while.
    cluster.propose("a", b"t1-x", b"t1-y", b"t1-z")
    cluster.deliver("a", "b")
    for other in "cde":
        cluster.lose("a", other)
    # c is elected without them and replaces them everywhere.
    cluster.elect("c", "d", "e")
    cluster.exchange("c", "d", "e")
    for _ in range(4):
        cluster.elapse(HEARTBEAT_S * 1.1)
        cluster.tick("c")
        for source, target in (("c", "a"), ("a", "c"), ("c", "b"), ("b", "c")):
            cluster.deliver(source, target)
    assert cluster.members["a"].values == cluster.members["b"].values == []
    # a leads again; its new entry reaches e alone, and then the old answer arrives.
    for name in "cde":
        cluster.lose(name, "a")
    cluster.elect("a", "c", "d", "e")
    for other in "bcd":
        cluster.lose("a", other)
    cluster.propose("a", b"new")
    for _ in range(3):
        cluster.deliver("a", "e")
        cluster.deliver("e", "a")
        cluster.elapse(HEARTBEAT_S * 1.1)
        cluster.tick("a")
    for other in "bcd":
        cluster.lose("a", other)
    cluster.deliver("b", "a")
    cluster.tick("a")
    # a and e fail; the others are a majority.
    cluster.stop("a")
    cluster.stop("e")
    cluster.elect("b", "c", "d")
    cluster.exchange("b", "c", "d")
    cluster.start("a")
    cluster.start("e")
    cluster.exchange(*"abcde")


def test_t2_stock_commits_by_an_acknowledgement_of_another_term(tmp_path: Path) -> None:
    with script(Stock, "abcde", tmp_path) as cluster:
        stale_acknowledgement(cluster)
        assert cluster.told[b"new"], "the client is told that its write is safe"
        assert any("is lost on" in fault for fault in cluster.faults())


def test_t2_ours_ignores_it(tmp_path: Path) -> None:
    with script(Ours, "abcde", tmp_path) as cluster:
        stale_acknowledgement(cluster)
        assert not cluster.told[b"new"]
        assert cluster.faults() == []


# -- T3: two membership changes at once --------------------------------------------------------------------------------


def test_t3_stock_accepts_two_removals_and_commits_alone(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path, dynamicMembershipChange=True) as cluster:
        cluster.elect("a", "b", "c")
        cluster.exchange("a", "b", "c")
        leader = cluster.members["a"].core
        leader.removeNodeFromCluster(next(n for n in leader.otherNodes if n.id == "b"))
        leader.removeNodeFromCluster(next(n for n in leader.otherNodes if n.id == "c"))
        cluster.tick("a")
        assert leader.otherNodes == set(), "both were accepted, and neither was committed"
        # Nothing a says from here on reaches anybody.
        cluster.propose("a", b"alone")
        for other in "bc":
            cluster.lose("a", other)
        assert cluster.told[b"alone"]
        cluster.elect("b", "c")
        cluster.propose("b", b"majority")
        cluster.exchange("b", "c")
        assert cluster.told[b"majority"]
        faults = cluster.faults()
    assert "states differ" in faults, faults
    assert "acknowledged b'alone' is lost on b,c" in faults


def test_t3_ours_refuses_the_second_and_rolls_the_first_back(tmp_path: Path) -> None:
    with script(Ours, "abc", tmp_path) as cluster:
        cluster.elect("a", "b", "c")
        cluster.exchange("a", "b", "c")
        member = cluster.members["a"]
        assert isinstance(member, Ours)
        core = member.core
        assert core.configuration is not None
        before = core.configuration
        core.change_configuration(removed(core.configuration, "b"), lambda *_: None)
        with pytest.raises(RefusedError, match="not committed yet"):
            core.change_configuration(removed(core.configuration, "c"), lambda *_: None)
        cluster.propose("a", b"alone")
        for other in "bc":
            cluster.lose("a", other)
        assert not cluster.told[b"alone"]
        cluster.elect("b", "c")
        cluster.propose("b", b"majority")
        cluster.exchange("b", "c")
        assert cluster.told[b"majority"]
        cluster.exchange("a", "b", "c")
        assert cluster.faults() == []
        assert core.configuration == before, "what was not committed does not count any more"


# -- T4, T5: applying --------------------------------------------------------------------------------------------------


class RaisingList(StockList):
    @replicated
    def add(self, value: bytes) -> None:
        if value == b"poison":
            raise ValueError("a bug in one method")
        self.values.append(value)


def test_t4_stock_retries_an_apply_that_raises_for_ever(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path, machine=RaisingList) as cluster:
        cluster.elect("a", "b", "c")
        cluster.exchange("a", "b", "c")
        member = cluster.members["a"]
        member.propose(b"poison", lambda _: None)
        member.propose(b"after", lambda success: cluster.told.update(after=success))  # type: ignore[call-overload]
        failures = 0
        for _ in range(100):
            cluster.elapse(HEARTBEAT_S * 1.1)
            for name in "abc":
                try:
                    cluster.tick(name)
                except ValueError:
                    failures += name == "a"
            for source, target in list(cluster.wire):
                cluster.receive(source, target)
        assert failures > 90, "it raises in every tick, and nothing else happens in them"
        assert cluster.members["a"].values == cluster.members["b"].values == []
        assert cluster.told == {}, "nobody ever hears of what came after"


def test_t4_ours_stops_the_process(tmp_path: Path) -> None:
    class Raising(ListState):
        def apply(self, index: int, term: int, entry: bytes) -> None:
            raise ValueError("a bug in one method")

    with script(Ours, "abc", tmp_path, state=Raising()) as cluster:
        cluster.elect("a", "b", "c")
        cluster.propose("a", b"poison")
        with pytest.raises(ValueError, match="a bug in one method"):
            cluster.exchange("a", "b", "c")
        assert not cluster.told[b"poison"]


class NewerList(StockList):
    @replicated(ver=1)
    def add_twice(self, value: bytes) -> None:
        self.values.extend((value, value))


def test_t5_stock_applies_an_entry_twice_after_an_unknown_version(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path, machine=NewerList) as cluster:
        cluster.stop("c")
        cluster.start("c", machine=StockList)
        cluster.elect("a", "b", "c")
        cluster.exchange("a", "b", "c")
        cluster.members["a"].core.setCodeVersion(1)
        cluster.propose("a", b"x", b"y")
        cluster.exchange("a", "b", "c")
        assert cluster.members["a"].values == [b"x", b"y"]
        assert cluster.members["c"].values[:3] == [b"x", b"y", b"y"]
        assert "c applied an entry twice" in cluster.faults()


@pytest.mark.parametrize("command", [b"\x03version", b"\x09later"])
def test_t5_ours_stops_at_a_kind_it_does_not_know(tmp_path: Path, command: bytes) -> None:
    with script(Ours, "abc", tmp_path) as cluster:
        cluster.elect("a", "b", "c")
        cluster.exchange("a", "b", "c")
        member = cluster.members["a"]
        assert isinstance(member, Ours)
        member.data.journal.add(command, member.data.journal.last_index + 1, member.term)
        with pytest.raises(SafetyViolationError, match="kind"):
            cluster.exchange("a", "b", "c")
        assert cluster.members["b"].values == []


# -- T6, issue 84, issue 201: what a restart forgets -------------------------------------------------------------------


def second_vote(cluster: Script) -> None:
    """b votes for a, loses power and comes back; then c, which heard nothing of it, asks for a vote in that term."""
    cluster.elect("a", "b")
    cluster.lose("a", "b")
    cluster.lose("a", "c")
    _lose_power(cluster, "b")
    cluster.elapse(ELECTION_S[1] * 1.1, "c")
    for _ in range(4):
        cluster.tick("c")
        cluster.deliver("c", "b")
        cluster.deliver("b", "c")


def _lose_power(cluster: Script, name: str) -> None:
    """Everything that was never synced is gone. PySyncObj syncs nothing; the worst a file system may do is used."""
    member = cluster.members[name]
    if isinstance(member, Ours):
        cluster.stop(name)
        member.disk.lose_power(member.directory)
    else:
        cluster.stop(name)
        for file in member.directory.glob("*.meta"):
            file.write_bytes(b"")
    cluster.start(name)


def test_t6_stock_votes_twice_in_a_term_after_a_power_loss(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path) as cluster:
        second_vote(cluster)
        faults = cluster.faults()
    assert "2 leaders in term 1" in faults, faults


def test_t6_ours_remembers_its_vote(tmp_path: Path) -> None:
    with script(Ours, "abc", tmp_path) as cluster:
        second_vote(cluster)
        assert cluster.faults() == []
        assert cluster.members["b"].term >= 1


def _power_fails_everywhere(cluster: Script, tmp_path: Path) -> None:
    """A write is acknowledged, then all machines lose power: issue 84."""
    cluster.elect("a", "b", "c")
    cluster.exchange("a", "b", "c")
    shutil.copytree(tmp_path / "data", tmp_path / "before")
    cluster.propose("a", b"kept?")
    cluster.exchange("a", "b", "c")
    assert cluster.told[b"kept?"]
    for name in "abc":
        member = cluster.members[name]
        cluster.stop(name)
        if isinstance(member, Ours):
            member.disk.lose_power(member.directory)
        else:
            # Nothing was synced since: a disk that has none of it is what a power loss may leave.
            restore(tmp_path / "before" / name, member.directory)
    for name in "abc":
        cluster.start(name)
    cluster.elect("a", "b", "c")
    cluster.exchange("a", "b", "c")


def test_issue_84_stock_acknowledges_what_no_disk_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[object] = []
    monkeypatch.setattr(journal.ResizableFile, "flush", synced.append)
    for name in ("fsync", "fdatasync"):
        monkeypatch.setattr(journal.os, name, synced.append)
    with script(Stock, "abc", tmp_path / "data") as cluster:
        _power_fails_everywhere(cluster, tmp_path)
        assert synced == []
        assert "acknowledged b'kept?' is lost on a,b,c" in cluster.faults()


def test_issue_84_ours_has_it_on_every_disk(tmp_path: Path) -> None:
    with script(Ours, "abc", tmp_path / "data") as cluster:
        _power_fails_everywhere(cluster, tmp_path)
        assert cluster.faults() == []
        assert all(member.values == [b"kept?"] for member in cluster.members.values())


# -- T7: a member that was cut off returns -----------------------------------------------------------------------------


def cut_off(cluster: Script) -> int:
    """c hears nobody for three seconds, then everybody; the term at which the others were before."""
    cluster.elect("a", "b", "c")
    cluster.exchange("a", "b", "c")
    term = cluster.members["a"].term
    for _ in range(30):
        cluster.exchange("a", "b", rounds=1)
        cluster.tick("c")
        for other in "ab":
            cluster.lose("c", other)
            cluster.lose(other, "c")
    cluster.elapse(ELECTION_S[1] * 1.1, "c")
    cluster.tick("c")
    for other in "ab":
        cluster.deliver("c", other)
    return term


def test_t7_stock_lets_it_depose_a_healthy_leader(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path) as cluster:
        before = cut_off(cluster)
        assert cluster.members["c"].term >= before + 3
        assert not cluster.members["a"].leads


def test_t7_ours_keeps_its_leader_and_its_term(tmp_path: Path) -> None:
    with script(Ours, "abc", tmp_path) as cluster:
        before = cut_off(cluster)
        assert cluster.members["a"].leads
        assert {member.term for member in cluster.members.values()} == {before}
        cluster.exchange("a", "b", "c")
        cluster.propose("a", b"on")
        cluster.exchange("a", "b", "c")
        assert cluster.faults() == []
        assert cluster.told[b"on"]


# -- T8: sizes ---------------------------------------------------------------------------------------------------------

AWKWARD = 2 * 65_536 - 64
"""Bytes of a value whose entry ends just above a multiple of PySyncObj's batch."""


def test_t8_stock_cannot_replicate_some_sizes(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path) as cluster:
        cluster.elect("a", "b", "c")
        cluster.exchange("a", "b", "c")
        broken: list[int] = []
        for size in range(AWKWARD - 100, AWKWARD + 64, 16):
            value = bytes([size % 251]) * size
            cluster.propose("a", value)
            try:
                cluster.exchange("a", "b", "c", rounds=3)
            except Exception:
                # Whatever unpickling half an entry raises.
                broken.append(size)
                break
        assert broken, "every size arrived"
        # It is sent again and again, and fails again and again.
        for _ in range(5):
            for pair in list(cluster.wire):
                cluster.lose(*pair)
            cluster.elapse(HEARTBEAT_S * 1.1)
            cluster.tick("a")
        assert not cluster.told[value]


def test_t8_ours_replicates_every_size(tmp_path: Path) -> None:
    with script(Ours, "abc", tmp_path) as cluster:
        cluster.elect("a", "b", "c")
        cluster.exchange("a", "b", "c")
        for size in range(AWKWARD - 100, AWKWARD + 64, 16):
            cluster.propose("a", bytes([size % 251]) * size)
            cluster.exchange("a", "b", "c", rounds=2)
        assert all(cluster.told.values())
        assert cluster.faults() == []


# -- T9: damage --------------------------------------------------------------------------------------------------------


def _journal_of(member: Member) -> Path:
    """The file that holds the member's newest entries."""
    files = [path for path in member.directory.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def _damage(cluster: Script, name: str, what: str) -> None:
    """Stop a member and damage the middle of its journal: 50 bytes of another content, or a page of zeros."""
    cluster.elect("a", "b", "c")
    cluster.exchange("a", "b", "c")
    cluster.propose("a", b"0" * 9000, b"1" * 9000, b"2" * 9000)
    cluster.exchange("a", "b", "c")
    cluster.propose("a", b"3")
    cluster.exchange("a", "b", "c")
    file = _journal_of(cluster.members[name])
    cluster.stop(name)
    raw = bytearray(file.read_bytes())
    at = raw.index(b"1" * 1000)
    if what == "bytes":
        raw[at + 100 : at + 150] = b"!" * 50
    else:
        start = (raw.index(b"0" * 1000) + 8500) // 4096 * 4096
        raw[start : start + 4096] = bytes(4096)
    file.write_bytes(raw)
    cluster.start(name)


def test_t9_stock_loads_damaged_entries_in_silence(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path) as cluster:
        _damage(cluster, "b", "bytes")
        cluster.exchange("a", "b", "c")
        assert b"1" * 9000 not in cluster.members["b"].values
        assert "states differ" in cluster.faults()


def test_t9_stock_does_not_survive_a_page_of_zeros(tmp_path: Path) -> None:
    with script(Stock, "abc", tmp_path) as cluster, pytest.raises((struct.error, OSError, ValueError)):
        _damage(cluster, "b", "page")


@pytest.mark.parametrize("what", ["bytes", "page"])
def test_t9_ours_refuses_and_says_why(tmp_path: Path, what: str) -> None:
    with script(Ours, "abc", tmp_path) as cluster:
        with pytest.raises(CorruptDataError, match=r"wal.*acknowledged entries may be lost"):
            _damage(cluster, "b", what)
        cluster.exchange("a", "c")
        cluster.propose("a", b"on")
        cluster.exchange("a", "c")
        assert cluster.told[b"on"]


def test_stock_is_stock() -> None:
    """Nothing of the package is replaced here but its transport and its clock."""
    assert StockList.__mro__[1] is SyncObj
    assert SyncObjConf(autoTick=False).appendEntriesUseBatch
