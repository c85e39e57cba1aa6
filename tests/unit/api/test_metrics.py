"""What Prometheus scrapes, read by Prometheus' own parser."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.builders import kept_volumes, report, tap
from unit.api.rig import Rig

from controlplane.model.commands import Hold, HoldKind

Samples = dict[tuple[str, tuple[str, ...]], float]


def scrape(api: Rig) -> Samples:
    answer = api.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.text)
    return {(each.name, tuple(each.labels.values())): each.value for family in families for each in family.samples}


@pytest.fixture
def fleet(api: Rig) -> Rig:
    """Host h1 is ready, and tells of a tap, of volumes that are held, and of a folder of somebody else."""
    api.with_host()
    api.active()
    theirs = tap(name="vms/x", ours=False)
    api.do(report(left_behind=[tap(), kept_volumes(), theirs]))
    api.do(Hold(kind=HoldKind.FOUND, host="h1", name=kept_volumes().name, reason="the data is looked at"))
    return api


def test_candidates_are_counted_by_what_they_wait_for(fleet: Rig) -> None:
    found = scrape(fleet)
    assert found["flintlock_gc_candidates", ("leftover", "policy")] == 1
    assert found["flintlock_gc_candidates", ("leftover", "operator")] == 1
    assert found["flintlock_gc_candidates", ("quarantined_volumes", "hold")] == 1
    assert found["flintlock_gc_candidates", ("lost_host", "nothing")] == 0
    assert found["flintlock_gc_oldest_age_seconds", ("leftover",)] >= 0
    assert ("flintlock_gc_oldest_age_seconds", ("lost_host",)) not in found


def test_what_was_collected_and_refused_is_counted(fleet: Rig) -> None:
    fleet.put("/gcpolicies/default", {"spec": {"leftover_after_s": 0}})
    made = fleet.get("/gc/plan").json()
    assert scrape(fleet)["flintlock_gc_candidates", ("leftover", "nothing")] == 1
    assert fleet.post("/gc/run", {"plan": made["plan"]}).json()["results"][0]["outcome"] == "collected"
    found = scrape(fleet)
    assert found["flintlock_gc_collected_total", ("leftover",)] == 1
    assert found["flintlock_gc_refused_total", ("leftover",)] == 0
    assert found["flintlock_gc_candidates", ("leftover", "confirmation")] == 1


def test_hosts_are_counted_and_what_is_left_on_each(fleet: Rig) -> None:
    found = scrape(fleet)
    assert found["flintlock_hosts", ("ready",)] == 1
    assert found["flintlock_hosts", ("fenced",)] == 0
    assert found["flintlock_hosts_available", ("open",)] == 1
    assert found["flintlock_host_left_behind", ("h1", "tap")] == 2
    assert found["flintlock_host_left_behind", ("h1", "folder")] == 0
    assert found["flintlock_host_left_behind_bytes", ("h1", "volumes")] == 4096
    assert found["flintlock_microvms", ("declared",)] == 1
    assert found["flintlock_state_revision", ()] > 0


def test_whoever_may_not_read_the_cluster_gets_no_metrics(fleet: Rig) -> None:
    fleet.bind("bob", "viewer", "demo")
    assert fleet.get("/metrics", headers=fleet.caller("bob")).status_code == 403
