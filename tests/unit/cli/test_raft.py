"""flintctl raft against a served API: what it shows, what it refuses, and its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from unit.api.rig import Rig

from controlplane.cli import raft_report
from controlplane.ports import PeerStatus

Cli = Callable[..., Any]

N2 = ("n2", "--address", "127.0.0.1:7102")


@pytest.fixture(autouse=True)
def healthy(api: Rig) -> None:
    api.log.changes = {"fsync": "always"}


def test_status_of_a_healthy_log(cli: Cli) -> None:
    answer = cli("raft", "status")
    assert answer.code == 0
    assert "Health:       ok" in answer.out
    assert "n1 (term 1)" in answer.out
    assert "Problems" not in answer.out
    found = json.loads(cli("raft", "status", "-o", "json").out)
    assert (found["healthy"], found["leader"], [node["node"] for node in found["nodes"]]) == (True, "n1", ["n1"])


def test_status_tells_who_is_silent_and_ends_with_2(cli: Cli, api: Rig) -> None:
    cli("raft", "add", *N2, "--api", "127.0.0.1:1", "--learner")
    answer = cli("raft", "status")
    assert answer.code == 2
    assert "degraded" in answer.out
    assert "n2: does not answer (connection refused or unreachable)" in answer.out
    assert "learner (silent)" in answer.out


def test_fsync_never_is_said_and_is_no_fault(cli: Cli, api: Rig) -> None:
    api.log.changes = {"fsync": "never"}
    answer = cli("raft", "status")
    assert answer.code == 0
    assert "n1: fsync: never: a power failure loses acknowledged writes" in answer.out


def test_status_when_nobody_answers(bare: Cli) -> None:
    answer = bare("--endpoint", "127.0.0.1:1", "--token", "x", "raft", "status")
    assert answer.code == 1
    assert "no control-plane node answers at https://127.0.0.1:1" in answer.err


def test_add_promote_members_remove(cli: Cli, api: Rig) -> None:
    assert cli("raft", "add", *N2, "--learner").out == "n2: added as a learner\n"
    assert cli("raft", "promote", "n2").out == "n2: votes\n"
    listed = cli("raft", "members").out
    assert [line.split()[:3] for line in listed.splitlines()[1:]] == [
        ["n1", "voter", "127.0.0.1:7101"],
        ["n2", "voter", "127.0.0.1:7102"],
    ]
    assert cli("raft", "transfer", "n2").out == "n2: leads\n"
    assert cli("raft", "remove", "n2", "--yes").out == "n2: removed\n"
    assert api.members.configuration.retired == ("n2",)


def test_add_shows_how_far_a_learner_is(cli: Cli, api: Rig) -> None:
    api.members.slow = 2
    answer = cli("raft", "add", *N2)
    assert (answer.code, answer.out) == (0, "n2: added, and votes\n")
    assert answer.err.count("n2 has 10 of 100 entries") == 1, "said once while it stays the same"


def test_add_gives_up_and_says_why(cli: Cli, api: Rig) -> None:
    api.members.slow = 10**6
    answer = cli("raft", "add", *N2, "--timeout", "1")
    assert answer.code == 1
    assert "has 10 of 100 entries" in answer.err
    assert "[409 membership_refused]" in answer.err


def test_replace_adds_first(cli: Cli, api: Rig) -> None:
    cli("raft", "add", *N2)
    answer = cli("raft", "replace", "n2", "n3", "--address", "127.0.0.1:7103", "--yes")
    assert answer.out == "n3: added, and votes\nn2: removed\n"
    assert api.members.configuration.voters == {"n1", "n3"}


def test_a_leader_that_leaves_hands_over(cli: Cli, api: Rig) -> None:
    cli("raft", "add", *N2)
    answer = cli("raft", "leave", "n1", "--yes")
    assert answer.out.startswith("n2: leads\nn1: left")
    assert api.members.configuration.voters == {"n2"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("remove", "n1", "--yes"), "n1 is the only voter"),
        (("remove", "n9", "--yes"), "n9 is not a member of this cluster; the members are n1"),
        (("promote", "n9"), "n9 is not a member"),
        (("transfer", "n9"), "n9 is not a voter"),
        (("add", "n2", "--address", "127.0.0.1:7101"), "address: 127.0.0.1:7101 is n1's already"),
    ],
)
def test_refusals(cli: Cli, api: Rig, arguments: tuple[str, ...], said: str) -> None:
    answer = cli("raft", *arguments)
    assert (answer.code, answer.out) == (1, "")
    assert said in answer.err
    assert "hint: Nothing was changed." in answer.err
    assert len(api.members.configuration.members) == 1


def test_help_teaches(bare: Cli) -> None:
    shown = " ".join(bare("raft", "--help").out.split())
    for text in ("flintctl raft replace n2 n4", "raft.join", "offline, when most nodes are lost"):
        assert text in shown


def test_peers_far_behind_are_a_problem(cli: Cli, api: Rig) -> None:
    cli("raft", "add", *N2)
    peer = PeerStatus(
        node="n2", address="127.0.0.1:7102", connected=True, match_index=1, lag_entries=9000, last_contact_ms=6000
    )
    api.log.changes = {"fsync": "always", "peers": (peer,)}
    answer = cli("raft", "status")
    assert answer.code == 2
    assert "n2: is 9000 entries behind" in answer.out
    assert "its API address is not known" in answer.out


def test_nodes_of_two_builds_are_told_of() -> None:
    plain = {"role": "follower", "members": [], "peers": []}
    answers = {"n1": {**plain, "machine_version": 2}, "n2": {**plain, "machine_version": 1}}
    said = raft_report.report(answers, {})["warnings"]
    assert said == [
        "an upgrade is under way (machine versions: n1 2, n2 1): what needs the newest waits until all nodes know it"
    ]
    assert raft_report.report({"n1": answers["n1"], "n3": answers["n1"]}, {})["warnings"] == []
