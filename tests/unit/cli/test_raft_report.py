"""The comparison of what nodes say: what one node alone cannot see."""

from __future__ import annotations

from typing import Any

import pytest

from controlplane.cli.raft_report import progress, report, row, size

MEMBERS = [{"node": f"n{n}", "role": "voter", "address": f"10.0.0.{n}:7101", "api": None} for n in (1, 2, 3)]


def node(name: str, **changes: Any) -> dict[str, Any]:
    leads = name == "n1"
    return {
        "node": name,
        "role": "leader" if leads else "follower",
        "leader": "n1",
        "term": 4,
        "incarnation": 1,
        "has_quorum": True,
        "commit_index": 90,
        "applied_index": 90,
        "last_index": 90,
        "state_hash": "abc",
        "state_hash_index": 90,
        "fsync": "always",
        "fsync_latency": {"samples": 5, "p50_ms": 0.2, "p99_ms": 1.0, "max_ms": 2.0},
        "members": MEMBERS,
        "concerns": [],
        "peers": [
            {"node": other, "connected": True, "lag_entries": 0, "last_contact_ms": 30, "match_index": 90}
            for other in ("n2", "n3")
        ]
        if leads
        else [],
        **changes,
    }


def three(**changes: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: node(name, **changes.get(name, {})) for name in ("n1", "n2", "n3")}


def test_all_is_well() -> None:
    found = report(three(), {})
    assert (found["healthy"], found["problems"], found["leader"], found["term"]) == (True, [], "n1", 4)
    assert [each["lag_entries"] for each in found["nodes"]] == [None, 0, 0]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"n2": {"state_hash": "xyz"}}, "the state at 90 differs: n1, n3 against n2"),
        ({"n2": {"role": "leader"}}, "n1 and n2 both lead in term 4"),
        ({"n3": {"incarnation": 2}}, "nodes of different incarnations answer ([1, 2])"),
        ({"n2": {"concerns": ["no live leader is known"]}}, "n2: no live leader is known"),
    ],
)
def test_contradictions(changes: dict[str, dict[str, Any]], said: str) -> None:
    found = report(three(**changes), {})
    assert not found["healthy"]
    assert any(each.startswith(said) for each in found["problems"]), found["problems"]


def test_hashes_at_different_indexes_are_not_compared() -> None:
    assert report(three(n2={"state_hash": "xyz", "state_hash_index": 89}), {})["healthy"]


def test_a_silent_node() -> None:
    answers = three()
    del answers["n3"]
    answers["n1"]["peers"][1]["connected"] = False
    found = report(answers, {"n3": "connection refused"})
    assert found["problems"] == ["n3: does not answer (connection refused); the leader does not reach it either"]
    assert row(found["nodes"][2], "n1")[:2] == ["n3", "voter (silent)"]


def test_lost_majority() -> None:
    alone = node("n2", role="candidate", leader=None, has_quorum=False)
    found = report({"n2": alone}, {"n1": "no", "n3": "no"})
    assert found["leader"] is None
    assert "no leader: nothing can be written" in found["problems"]
    assert "1 of 3 voters can be reached: 2 are needed" in found["problems"]


def test_an_old_leader_that_is_cut_off_is_not_the_leader() -> None:
    answers = three(n1={"term": 3, "has_quorum": False}, n2={"role": "leader", "leader": "n2"})
    answers["n3"]["leader"] = "n2"
    assert report(answers, {})["leader"] == "n2"


def test_an_endpoint_that_does_not_answer_is_a_warning_alone() -> None:
    found = report(three(), {"https://old:7301": "no"})
    assert (found["healthy"], found["warnings"]) == (True, ["https://old:7301: no"])


def test_a_stranger() -> None:
    found = report({**three(), "n9": node("n9")}, {})
    assert "n9: answers, and is no member of the cluster" in found["problems"]


def test_nothing_known_is_no_crash() -> None:
    found = report({"": {}}, {})
    assert not found["healthy"]
    assert row(found["nodes"][0], None)


def test_progress_and_sizes() -> None:
    answer = node("n1")
    answer["peers"][0]["match_index"] = 45
    assert progress(answer, "n2") == "45 of 90 entries (50 %)"
    assert progress(answer, "n7") == ""
    assert [size(n) for n in (5, 2048, 3 << 20, None)] == ["5 B", "2.0 KiB", "3.0 MiB", ""]
