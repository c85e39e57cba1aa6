"""Snapshots between members: offered, fetched piece by piece and never twice, installed at once or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest
from unit.consensus.rig import Rig

from controlplane.consensus import core, engine
from controlplane.consensus.messages import (
    AppendEntries,
    AppendReply,
    Message,
    SnapshotData,
    SnapshotFetch,
    SnapshotOffer,
    StateHash,
)
from controlplane.consensus.snapshot import Capture
from controlplane.machine.draft import DIGEST_FORMAT

X = b"\x00x"


def compacted_leader(directory: Path) -> Rig:
    rig = Rig(directory, snapshot_entries=10, retain_entries=2)
    rig.lead()
    for i in range(20):
        rig.core.propose(b"%d" % i, lambda *_: None)
    rig.core.tick()
    rig.acknowledge("b")
    assert rig.snapshots_due == 1
    rig.snapshot()
    return rig


def transfer(leader: Rig, follower: Rig) -> list[Message]:
    """Carry everything about snapshots between a leader "a" and a follower "c" until they are quiet. Gives it all."""
    carried: list[Message] = []
    kinds = (SnapshotOffer, SnapshotFetch, SnapshotData)
    while True:
        down = [m for kind in kinds for m in leader.sent(kind, "c")]
        leader.clear()
        for message in down:
            follower.hear("a", message)
        up = [m for kind in kinds for m in follower.sent(kind, "a")]
        follower.clear()
        for message in up:
            leader.hear("c", message)
        carried += down + up
        if not down and not up:
            return carried


def fetched(carried: list[Message]) -> list[int]:
    """The positions of the chunks that were sent."""
    return [position for m in carried if isinstance(m, SnapshotData) for position, _ in m.chunks]


def test_a_leader_whose_state_is_in_doubt_offers_no_snapshot(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    index = leader.core.applied_index
    leader.hear("b", StateHash(DIGEST_FORMAT, [(index, "another")]))
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    assert leader.sent(SnapshotOffer) == []
    # The third one stands by the leader.
    leader.hear("c", StateHash(DIGEST_FORMAT, [(index, leader.state.digest())]))
    assert len(leader.sent(SnapshotOffer, "c")) == 1


def test_a_lagging_follower_gets_the_snapshot_and_goes_on_from_there(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    journal = leader.data.journal
    assert journal.base_index == journal.last_index - 2
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    carried = transfer(leader, follower)
    assert carried[-1] == SnapshotFetch(1, 22, carried[-1].hash, 0, [], installed=True)  # type: ignore[union-attr]
    assert follower.state.digest() == leader.state.digest()
    assert leader.core.match_index("c") == journal.last_index
    leader.clear()
    leader.core.propose(b"after", lambda *_: None)
    leader.core.tick()
    for message in leader.sent(AppendEntries, "c"):
        follower.hear("a", message)
    leader.acknowledge("b")
    for message in leader.sent(AppendEntries, "c"):
        follower.hear("a", message)
    assert follower.state.entries[-1] == b"after"
    follower.restart()
    assert follower.state.entries == leader.state.entries[:-1]
    assert follower.data.journal.last_index == leader.data.journal.last_index


def test_a_damaged_snapshot_chunk_is_asked_for_again(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    follower.hear("a", leader.sent(SnapshotOffer, "c")[0])
    leader.hear("c", follower.sent(SnapshotFetch)[-1])
    follower.hear("a", leader.sent(SnapshotData, "c")[-1])
    asked = follower.sent(SnapshotFetch)[-1]
    leader.hear("c", asked)
    good = leader.sent(SnapshotData, "c")[-1]
    assert len(good.chunks) == len(asked.chunks) == 2
    first, (position, data) = good.chunks
    follower.hear("a", SnapshotData(good.term, good.hash, 0, b"", [first, (position, data[:-1] + b"?")]))
    assert follower.state.entries == []
    assert follower.sent(SnapshotFetch)[-1].chunks == [position]
    follower.hear("a", SnapshotData(good.term, good.hash, 0, b"", [(position, data)]))
    assert follower.state.digest() == leader.state.digest()


def test_only_missing_chunks_are_sent(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    assert fetched(transfer(leader, follower)) == [0, 1]
    for i in range(40):
        leader.core.propose(b"more %d" % i, lambda *_: None)
    leader.core.tick()
    leader.acknowledge("b")
    manifest = leader.snapshot()
    assert len(manifest.chunks) == 4
    leader.core.disconnected("c")
    leader.core.connected("c")
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    leader.core.tick()
    assert fetched(transfer(leader, follower)) == [1, 2, 3], "the first block of entries is in its own snapshot"
    assert follower.state.digest() == leader.state.digest()
    follower.restart()
    assert follower.state.digest() == leader.state.digest()


@pytest.mark.parametrize("lost", range(8))
def test_a_transfer_goes_on_after_any_lost_message(tmp_path: Path, lost: int) -> None:
    leader = compacted_leader(tmp_path / "a")
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    number = 0
    sent_chunks: list[int] = []
    for _ in range(10):
        moved = False
        for source, target, name, sender in ((leader, follower, "c", "a"), (follower, leader, "a", "c")):
            messages = [m for kind in (SnapshotOffer, SnapshotData, SnapshotFetch) for m in source.sent(kind, name)]
            source.clear()
            for message in messages:
                moved = True
                number += 1
                if isinstance(message, SnapshotData) and number - 1 != lost:
                    sent_chunks += [position for position, _ in message.chunks]
                if number - 1 != lost:
                    target.hear(sender, message)
        if not moved:
            # The connection is made anew; another leader would do the same.
            leader.core.disconnected("c")
            leader.core.connected("c")
            leader.core.tick()
    assert follower.state.digest() == leader.state.digest()
    assert sorted(sent_chunks) == [0, 1], "what came is not sent again"


def test_a_transfer_goes_on_with_the_snapshot_of_another_leader(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    follower.hear("a", leader.sent(SnapshotOffer, "c")[0])
    leader.hear("c", follower.sent(SnapshotFetch)[-1])
    follower.hear("a", leader.sent(SnapshotData, "c")[-1])
    leader.hear("c", SnapshotFetch(1, 22, leader.sent(SnapshotData, "c")[-1].hash, 0, [0], installed=False))
    follower.hear("a", leader.sent(SnapshotData, "c")[-1])
    for i in range(20):
        leader.core.propose(b"more %d" % i, lambda *_: None)
    leader.core.tick()
    leader.acknowledge("b")
    leader.snapshot()
    leader.core.disconnected("c")
    leader.core.connected("c")
    leader.clear()
    follower.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    leader.core.tick()
    assert 0 not in fetched(transfer(leader, follower))
    assert follower.state.digest() == leader.state.digest()


def test_a_follower_that_loads_a_snapshot_answers_its_leader(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    due: list[bool] = []
    follower.install_due = lambda: due.append(True)  # type: ignore[method-assign]
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    transfer(leader, follower)
    assert due == [True]
    follower.heartbeat("a", prev_index=20, prev_term=1)
    assert not follower.sent(AppendReply)[-1].success
    offer = SnapshotOffer(1, 21, b"?" * 32, 10)
    follower.clear()
    follower.hear("a", offer)
    assert follower.sent(SnapshotFetch) == [SnapshotFetch(1, 21, offer.hash, 10, [], installed=False)]
    prepared = follower.core.prepare_install()
    assert follower.state.entries == []
    follower.core.finish_install(prepared)
    assert follower.state.digest() == leader.state.digest()


def test_a_snapshot_that_is_overtaken_by_entries_is_not_installed(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    follower.install_due = lambda: None  # type: ignore[method-assign]
    leader.clear()
    leader.hear("c", AppendReply(leader.core.term, False, 2, 0))
    transfer(leader, follower)
    prepared = follower.core.prepare_install()
    entries = [(1, b"\x01"), *((1, b"\x00%d" % i) for i in range(25))]
    follower.heartbeat("a", entries=entries, commit_index=len(entries) + 1)
    digest = follower.state.digest()
    follower.core.finish_install(prepared)
    assert follower.state.digest() == digest
    assert len(follower.state.entries) == 25
    follower.restart()
    assert len(follower.commands()) == 25
    assert follower.data.journal.base_index == 1


def test_a_crash_between_snapshot_and_journal_reset_recovers(tmp_path: Path) -> None:
    leader = compacted_leader(tmp_path / "a")
    found = leader.data.snapshots.newest
    assert found is not None
    follower = Rig(tmp_path / "c", node="c", peers="ab")
    follower.heartbeat("a", entries=[(1, X)], commit_index=1)
    follower.data.snapshots.save(Capture(found.index, found.term, found.entry_index, b"", 0, leader.state.view()))
    follower.restart()
    assert follower.state.digest() == leader.state.digest()
    assert follower.data.journal.base_index == found.index
    assert follower.core.commit_index == found.index


def test_snapshots_are_due_by_entries_bytes_and_age(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def commit(rig: Rig, count: int, size: int = 1) -> None:
        for _ in range(count):
            rig.core.propose(bytes(size), lambda *_: None)
        rig.core.tick()
        rig.acknowledge("b")

    entries = Rig(tmp_path / "entries", snapshot_entries=10)
    entries.lead()
    commit(entries, 7)
    assert entries.snapshots_due == 0
    commit(entries, 1)
    assert entries.snapshots_due == 1
    size = Rig(tmp_path / "bytes", snapshot_bytes=1000)
    size.lead()
    commit(size, 1, 900)
    assert size.snapshots_due == 0
    commit(size, 1, 200)
    assert size.snapshots_due == 1
    now = core.monotonic_s()
    age = Rig(tmp_path / "age", snapshot_age_s=60)
    age.lead()
    age.core.snapshot_saved(age.data.snapshots.save(age.core.capture()))
    for module in (core, engine):
        monkeypatch.setattr(module, "monotonic_s", lambda: now + 100)
    age.core.tick()
    assert age.snapshots_due == 0, "nothing is new"
    commit(age, 1)
    assert age.snapshots_due == 1
