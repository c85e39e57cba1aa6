"""What a run is made of and how it is judged, without running one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from linearizability.broken_builds import BUILDS
from linearizability.cluster import errors_in
from linearizability.faults import FAULTS
from linearizability.history import Kind, Operation, Outcome
from linearizability.judge import judge, service
from linearizability.nemesis import Event
from linearizability.raft_check import PLANS, append, read, summary
from linearizability.rounds import Report

SECOND = 10**9


def answered(at_s: float, latency_s: float = 0.01) -> Operation:
    end = round(at_s * SECOND)
    begin = end - round(latency_s * SECOND)
    return Operation(0, 0, "n1", "k", Kind.READ, begin, return_ns=end, outcome=Outcome.OK)


def report(name: str, *, problems: tuple[str, ...] = (), undecided: tuple[str, ...] = ()) -> Report:
    seen = service([answered(1), answered(3)], [Event("kill-one", "n1", 2 * SECOND, 3 * SECOND)], 0, 4 * SECOND)
    return Report(
        name=name,
        version="abc",
        nodes=3,
        build="shipped",
        faulted_s=4.0,
        faults={"kill-one": 1},
        operations={"ok": 2, "refused": 0, "failed": 0, "unknown": 0},
        service=seen,
        check_s=0.1,
        check_steps=2,
        problems=list(problems),
        undecided=list(undecided),
    )


def test_every_fault_belongs_to_a_plan_that_can_run_it() -> None:
    offered = {fault.name for plan in PLANS.values() for fault in plan.faults(FAULTS)}
    broken = {name for _, plan, names in BUILDS.values() for name in names if FAULTS[name].possible(plan.offers)}
    assert offered | broken == set(FAULTS)
    assert "power-loss-after-lies" not in offered, "a build that is broken on purpose must not pass for a good one"


def test_both_sizes_and_all_builds_are_planned() -> None:
    assert {plan.nodes for plan in PLANS.values()} == {3, 5}
    assert {plan.build.kind for plan in PLANS.values()} == {"shipped", "instrumented", "api"}
    assert not any(plan.stale_clients or plan.lying_disks or plan.build.stale_reads for plan in PLANS.values())


def test_unavailability_is_the_longest_gap_and_belongs_to_the_fault_that_came_alone() -> None:
    operations = [answered(at) for at in (1, 2, 5, 5.5, 6)]
    alone = Event("kill-one", "n1", 2 * SECOND, 4 * SECOND)
    pair = [
        Event("delay", "n1", round(5.1 * SECOND), 6 * SECOND),
        Event("kill-all", "", round(5.2 * SECOND), 6 * SECOND),
    ]
    seen = service(operations, [alone, *pair], SECOND, 6 * SECOND)
    assert seen.longest_unavailable_s == 3.0
    assert seen.unavailable_s_by_fault == {"kill-one": 3.0}
    assert seen.p99_ms == pytest.approx(10.0)
    assert seen.per_s == pytest.approx(1.0)


def test_silence_until_the_end_is_unavailability() -> None:
    assert service([answered(1)], [], 0, 9 * SECOND).longest_unavailable_s == 8.0


def test_the_judgement_names_both_kinds_of_problems() -> None:
    write = Operation(0, 0, "n1", "k", Kind.WRITE, 0, value=1, return_ns=1, outcome=Outcome.OK, revision=7)
    stale = Operation(1, 1, "n2", "k", Kind.READ, 2, value=0, return_ns=3, outcome=Outcome.OK, revision=6)
    judged = judge([write, stale])
    assert not judged.passed
    assert any(problem.startswith("register k") for problem in judged.problems)
    assert any(problem.startswith("revisions:") for problem in judged.problems)
    assert "<svg" in judged.page
    assert judge([write]).passed


def test_errors_of_a_node_are_findings_unless_excused(tmp_path: Path) -> None:
    log = tmp_path / "log"
    lines = [
        json.dumps({"event": "fine", "level": "info"}),
        json.dumps({"event": "writing the journal: No space left on device", "level": "error"}),
        json.dumps({"event": "term goes back", "level": "critical"}),
        "Traceback (most recent call last):",
        "",
    ]
    log.write_text("\n".join(lines))
    assert [line[:20] for line in errors_in(log, ["No space left"])] == ['{"event": "term goes', "Traceback (most rece"]
    assert len(list(errors_in(log, []))) == 3
    assert list(errors_in(tmp_path / "none", [])) == []


def test_runs_add_up_in_the_tally(tmp_path: Path) -> None:
    tally = tmp_path / "check" / "rounds.jsonl"
    assert read(tally) == []
    reports = [report("a"), report("b", problems=("lost",)), report("c", undecided=("k",))]
    for each in reports:
        append(tally, each)
    assert read(tally) == reports
    text = summary(read(tally))
    assert "3 rounds, 0.2 minutes" in text
    assert "2 rounds with a violation or undecided: b, c" in text
    assert "kill-one 3 (2 s)" in text


@pytest.mark.netns
def test_without_permission_it_says_so_and_fails() -> None:
    code = "from linearizability.sandbox import run_inside; raise SystemExit(run_inside(lambda: 0))"
    result = subprocess.run(
        ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin", sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 69
    assert "namespaces are not permitted here: Operation not permitted" in result.stderr
