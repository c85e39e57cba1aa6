"""flintctl gc, hold and release against a served API."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from support.builders import failure, kept_volumes, observation, report
from unit.api.rig import Rig

from controlplane.model.resources import MicroVMPhase, ObservedPower
from controlplane.model.spec import GCPolicySpec

Cli = Callable[..., Any]


@pytest.fixture
def fleet(api: Rig) -> Iterator[Rig]:
    """demo/web failed; what failed is collected at once."""
    services = api.server.app.state.services
    policy = GCPolicySpec(failed_microvm_after_s=0)
    api.server.app.state.services = replace(services, settings=replace(services.settings, gc_policy=policy))
    api.with_host()
    api.put_vm()
    api.place()
    api.do(report(observation(api.vm(), power=ObservedPower.ABSENT, generation=None, failure=failure())))
    yield api
    api.server.app.state.services = services


def test_what_the_plan_shows_is_collected(cli: Cli, fleet: Rig) -> None:
    shown = cli("gc", "plan")
    assert shown.code == 0, shown.err
    assert "failed_microvm" in shown.out
    assert "MicroVM demo/web on h1" in shown.out
    assert "ImageNotFound" in shown.out
    assert fleet.vm().phase is MicroVMPhase.FAILED
    done = cli("gc", "run", "--only", "failed_microvm", "--yes")
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 collected")
    assert fleet.vm().phase is MicroVMPhase.DELETING
    status = json.loads(cli("gc", "status", "-o", "json").out)
    assert [each["collected"] for each in status["triggers"] if each["trigger"] == "failed_microvm"] == [1]
    assert "failed_microvm" in cli("gc", "status").out


def test_what_is_held_stays_and_says_why(cli: Cli, fleet: Rig) -> None:
    assert cli("hold", "microvm/demo/web", "--reason", "the crash is looked at").out == "microvm/demo/web: held\n"
    assert "the crash is looked at" in cli("gc", "holds").out
    assert "the crash is looked at" in cli("gc", "plan").out
    assert cli("gc", "run", "--yes").out.splitlines()[-1] == "0 collected"
    refused = cli("vm", "delete", "demo/web", "--yes")
    assert refused.code == 1
    assert "flintctl release microvm/demo/web" in " ".join(refused.err.split())
    assert cli("release", "microvm/demo/web").out == "microvm/demo/web: released\n"
    assert cli("gc", "run", "--yes").out.splitlines()[-1] == "1 collected"


def test_a_deletion_says_why(cli: Cli, fleet: Rig) -> None:
    assert cli("vm", "delete", "demo/web", "--no-wait", "--yes", "--reason", "seen enough").code == 0
    deletion = fleet.vm().deletion
    assert deletion is not None
    assert deletion.reason == "seen enough"
    assert "seen enough" in cli("vm", "show", "demo/web").out


@pytest.mark.parametrize("subject", ["web", "disk/web", "found/h1", "host/a/b"])
def test_what_is_no_subject_is_refused(cli: Cli, fleet: Rig, subject: str) -> None:
    refused = cli("hold", subject, "--reason", "x")
    assert refused.code == 2
    assert "KIND/NAME" in refused.err


def test_kept_volumes_are_purged_with_a_reason_once_it_is_seen_what_goes(cli: Cli, fleet: Rig) -> None:
    fleet.do(report(left_behind=[kept_volumes()]))
    asked = ("gc", "purge", "h1", kept_volumes().name, "--reason", "nobody wants it back")
    seen = cli(*asked, "--dry-run")
    assert seen.code == 0, seen.err
    assert "nobody wants it back (local volumes of microVM demo/old, epoch 3" in seen.out
    assert not fleet.replica.state.hosts["h1"].clearing
    assert cli(*asked, "--yes").out.startswith(seen.out.splitlines()[0])
    assert list(fleet.replica.state.hosts["h1"].clearing) == [kept_volumes().key]
    missing = cli("gc", "purge", "h1", "quarantine/other-1", "--reason", "x", "--dry-run")
    assert missing.code == 1
    assert "/left: host h1 tells of nothing left behind" in missing.err
