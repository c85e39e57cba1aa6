"""Members that are gone for good are removed when the operator asked for it, and never so that it does harm."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.consensus.support import ListState, peer_settings, until

from controlplane.consensus import RaftNode
from controlplane.consensus.cleanup import MAX_STEP_S, MIN_VOTERS, Silence, to_remove
from controlplane.consensus.configuration import Configuration, majority
from controlplane.consensus.errors import RemovedError
from controlplane.ports import Member

AFTER_S, RECENT_S = 100.0, 5.0


def configuration(voters: str, learners: str = "") -> Configuration:
    return Configuration(
        incarnation=1,
        members=tuple(
            Member(node, f"127.0.0.1:{1000 + i}", "voter" if node in voters else "learner")
            for i, node in enumerate(sorted(voters + learners))
        ),
        retired=(),
    )


def chosen(members: Configuration, **silent_s: float) -> str | None:
    others = {member.node: 0.0 for member in members.members if member.node != "a"}
    return to_remove(members, "a", {**others, **silent_s}, after_s=AFTER_S, recent_s=RECENT_S)


def test_who_answers_stays() -> None:
    assert chosen(configuration("abcde")) is None
    assert chosen(configuration("abcde"), b=99.9) is None


def test_the_longest_silent_goes_first() -> None:
    assert chosen(configuration("abcde"), c=101, d=200) == "d"


def test_three_voters_are_never_made_two() -> None:
    assert chosen(configuration("abc"), c=1000) is None
    assert chosen(configuration("abcd"), c=1000) == "c"


def test_without_a_reachable_majority_of_the_rest_nobody_is_removed() -> None:
    assert chosen(configuration("abcde"), c=1000, d=50, e=50) is None
    assert chosen(configuration("abcde"), c=1000, d=50) == "c"


def test_a_dead_learner_is_removed_too() -> None:
    assert chosen(configuration("abc", "l"), l=1000) == "l"
    assert chosen(configuration("ab", "l"), l=1000) is None
    assert chosen(configuration("abc", "l"), b=1000, l=500) == "l", "the voter may not be removed, the learner may"


@given(
    st.integers(1, 7),
    st.dictionaries(st.sampled_from("bcdefg"), st.floats(0, 300), max_size=6),
)
def test_what_remains_can_always_commit(size: int, silence: dict[str, float]) -> None:
    members = configuration("abcdefg"[:size])
    silent_s = {node: silence.get(node, 0.0) for node in "bcdefg"[: size - 1]}
    gone = to_remove(members, "a", silent_s, after_s=AFTER_S, recent_s=RECENT_S)
    if gone is None:
        return
    rest = members.voters - {gone}
    alive = [node for node in rest if silent_s.get(node, 0.0) < RECENT_S]
    assert silent_s[gone] >= AFTER_S
    assert len(rest) >= MIN_VOTERS
    assert len(alive) >= majority(len(rest))


def test_silence_is_counted_only_while_it_is_watched() -> None:
    silence = Silence()
    assert silence.look(1000.0, {"b": False}) == {"b": 0.0}
    assert silence.look(1001.0, {"b": False, "c": False}) == {"b": 1.0, "c": 1.0}
    assert silence.look(9999.0, {"b": False, "c": True}) == {"b": 1.0 + MAX_STEP_S, "c": 0.0}
    assert silence.look(9998.0, {"b": False}) == {"b": 1.0 + MAX_STEP_S}


def test_a_patience_shorter_than_a_restart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="dead_server_cleanup_s: 0, or at least 5 x election_max_s"):
        peer_settings(tmp_path, None, ["n1", "n2"], dead_server_cleanup_s=4.9)


async def test_a_dead_voter_is_removed_and_three_are_kept(tmp_path: Path) -> None:
    names = ["n1", "n2", "n3", "n4"]
    settings = peer_settings(
        tmp_path, None, names, heartbeat_s=0.05, election_min_s=0.2, election_max_s=0.4, dead_server_cleanup_s=2.0
    )
    nodes = {name: RaftNode(settings[name], ListState()) for name in names}
    for node in nodes.values():
        await node.start()

    async def leader() -> str | None:
        statuses = [await node.status() for node in nodes.values()]
        return next((status.node for status in statuses if status.role == "leader" and status.has_quorum), None)

    async def followers() -> list[str]:
        leads = await until(leader, "a leader")
        return [name for name in nodes if name != leads]

    dead = (await followers())[0]
    await nodes.pop(dead).stop()

    async def removed() -> bool:
        statuses = [await node.status() for node in nodes.values()]
        shown = {name for status in statuses for name in status.removed_dead}
        return shown == {dead} and all(dead not in {m.node for m in status.members} for status in statuses)

    await until(removed, "the dead voter is removed, and the status says so", timeout_s=30)
    again = RaftNode(settings[dead], ListState())
    await again.start()
    async with asyncio.timeout(30):
        with pytest.raises(RemovedError):
            await again.wait_failed()
    await again.stop()
    another = (await followers())[0]
    await nodes.pop(another).stop()
    leads = str(await until(leader, "a leader of the two that are left"))

    async def long_silent() -> bool:
        peer = next(peer for peer in (await nodes[leads].status()).peers if peer.node == another)
        return peer.last_contact_ms is not None and peer.last_contact_ms > 3_500

    await until(long_silent, "the second one is as silent as the first one was")
    assert len((await nodes[leads].status()).members) == 3
    for node in nodes.values():
        await node.stop()
