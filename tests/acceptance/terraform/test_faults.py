"""What happens when things go wrong: drift, lost answers, killed processes, refusals, an unreachable control plane.

One Terraform is enough here, since what is tested is the provider's side; drift and failures run on the newer one.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from acceptance.terraform.conftest import Work
from acceptance.terraform.fake_api import FakeApi
from acceptance.terraform.runner import Flavor, interrupt
from acceptance.terraform.steps import (
    HEADER,
    apply_and_settle,
    assert_plan_differs,
    assert_plan_empty,
    change_state,
)

VM = (
    HEADER
    + """
resource "flintlock_namespace" "demo" {
  name = "demo"
}

resource "flintlock_microvm" "web" {
  name         = "web"
  namespace    = flintlock_namespace.demo.name
  vcpu         = 1
  memory_in_mb = 128
  kernel       = { image = "demo/kernel:6.1" }
  EXTRA
}
"""
)
WEB = ("MicroVM", "demo", "web")
ADDRESS = "flintlock_microvm.web"


def vm(extra: str = "") -> str:
    return VM.replace("EXTRA", extra)


def line_of(hcl: str, text: str) -> str:
    """Where Terraform says that a text is."""
    return f"on main.tf line {next(i for i, line in enumerate(hcl.splitlines(), 1) if text in line)}"


def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "the condition did not come true in time"
        time.sleep(0.02)


def provider_pids(parent: int) -> list[int]:
    """Provider processes below a Terraform that this test started."""
    found: list[int] = []
    for task in Path("/proc").iterdir():
        if not task.name.isdecimal():
            continue
        try:
            status = (task / "stat").read_text().rsplit(")", 1)[1].split()
            command = (task / "cmdline").read_bytes()
        except OSError:
            continue
        if int(status[1]) == parent and b"provider_shim" in command:
            found.append(int(task.name))
    return found


@pytest.mark.parametrize("policy", ["report", "repair"])
def test_drift_is_shown_and_an_apply_repairs_it(newest: Flavor, fake_api: FakeApi, work: Work, policy: str) -> None:
    tf = work(newest, fake_api.environment, vm(f'drift_policy = "{policy}"'))
    tf.apply()
    fake_api.store.drift(WEB, "/spec/power_state", "absent", "process exited (signal 9)")
    planned = assert_plan_differs(tf)
    assert '"stopped" -> "running"' in planned
    assert "process exited (signal 9)" in planned
    assert "1 to change" in planned
    apply_and_settle(tf)
    assert fake_api.store.repairs == [WEB]
    tf.destroy()


def test_what_is_not_drift_shows_nothing(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm())
    tf.apply()
    status = fake_api.store.objects[WEB]["status"]
    for kind in ("progressing", "unreachable"):
        fake_api.store.drift(WEB, "/spec/power_state", "absent", "its host does not answer")
        status["drift"]["class"] = kind
        assert_plan_empty(tf)
    status.update(host="h2", epoch=2)
    assert_plan_empty(tf)
    tf.destroy()


def test_an_unreachable_control_plane_removes_nothing_from_state(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm())
    tf.apply()
    before = tf.resources()
    for status, page in ((404, b"<html>not here</html>"), (200, b"<html>welcome</html>"), (502, b"bad gateway")):
        fake_api.faults.forged = (status, page)
        refused = tf.run("refresh", "-no-color", expect=1)
        assert "Cannot read namespace demo" in refused.plain
        assert tf.resources() == before
    fake_api.faults.forged = None
    assert_plan_empty(tf)
    tf.destroy()


def test_another_ones_object_is_an_error_with_the_import_command(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm())
    fake_api.store.put(("Namespace", "", "demo"), {"spec": {}}, {})
    refused = tf.apply(expect=1)
    assert "namespace demo exists already" in refused.plain
    assert "terraform import flintlock_namespace.NAME demo" in refused.plain
    assert line_of(vm(), 'name = "demo"') in refused.plain
    tf.import_("flintlock_namespace.demo", "demo")
    apply_and_settle(tf)
    tf.destroy()


def test_a_lost_answer_makes_no_second_object(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm())
    fake_api.faults.lost_answers = 2
    fake_api.faults.unavailable = 2
    apply_and_settle(tf)
    assert len(fake_api.store.created_uids) == 2
    keys = {each.headers["idempotency-key"] for each in fake_api.calls("PUT") if each.path.endswith("/web")}
    assert len(keys) == 1
    tf.destroy()


@pytest.mark.parametrize("victim", ["terraform", "provider"])
def test_killed_in_the_middle_of_a_create(newest: Flavor, fake_api: FakeApi, work: Work, victim: str) -> None:
    tf = work(newest, fake_api.environment, vm())
    fake_api.store.hold = True
    process = tf.start("apply", "-no-color", "-input=false", "-auto-approve")
    until(lambda: WEB in fake_api.store.objects)
    pids = provider_pids(process.pid)
    assert pids
    for pid in pids if victim == "provider" else [process.pid]:
        os.kill(pid, signal.SIGKILL)
    process.communicate(timeout=60)
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    if victim == "terraform":
        # Killed, it never gave its lock back.
        (tf.workdir / ".terraform.tfstate.lock.info").unlink()
    fake_api.store.release()
    apply_and_settle(tf)
    assert len(fake_api.store.created_uids) == 2
    assert tf.resources()[ADDRESS]["uid"] == fake_api.store.objects[WEB]["uid"]
    tf.destroy()
    assert fake_api.store.objects == {}


def test_a_guest_that_fails_is_in_state_tainted(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm())
    fake_api.store.fail_guest = "image demo/kernel:6.1 is in no image store"
    refused = tf.apply(expect=1)
    assert "microVM demo/web failed" in refused.plain
    assert "image demo/kernel:6.1 is in no image store" in refused.plain
    first = fake_api.store.objects[WEB]["uid"]
    fake_api.store.fail_guest = None
    assert "is tainted, so must be replaced" in assert_plan_differs(tf)
    apply_and_settle(tf)
    assert fake_api.store.objects[WEB]["uid"] != first
    tf.destroy()


def test_a_create_that_takes_too_long_says_why(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm('timeouts {\n    create = "500ms"\n  }'))
    fake_api.store.hold = True
    refused = tf.apply(expect=1)
    assert "microVM demo/web is not running after 500ms" in refused.plain
    assert "Placed: no host has room (NoCapacity)" in refused.plain
    fake_api.store.release()
    tf.run("untaint", ADDRESS)
    tf.write(vm())
    apply_and_settle(tf)
    tf.destroy()


def test_ctrl_c_ends_the_wait_and_forgets_nothing(on_path: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(on_path, fake_api.environment, vm())
    fake_api.store.hold = True
    process = tf.start("apply", "-no-color", "-input=false", "-auto-approve")
    until(lambda: WEB in fake_api.store.objects and fake_api.requests[-1].method == "GET")
    asked_at = time.monotonic()
    interrupt(process)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - asked_at < 15
    assert "Interrupted while waiting for microVM demo/web" in " ".join(output.replace("│", " ").split())
    fake_api.store.release()
    assert tf.resources()[ADDRESS]["uid"] == fake_api.store.objects[WEB]["uid"]
    apply_and_settle(tf)
    assert len(fake_api.store.created_uids) == 2
    tf.destroy()


def test_deletion_that_is_not_confirmed_stays_in_state(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm('timeouts {\n    delete = "300ms"\n  }'))
    tf.apply()
    fake_api.store.hold_deletes = True
    refused = tf.destroy(expect=1)
    assert "microVM demo/web is not gone yet" in refused.plain
    assert ADDRESS in tf.resources()
    planned = tf.plan()
    assert "microVM demo/web is being deleted" in planned.plain
    fake_api.store.release()
    tf.destroy()


def test_refusals_point_at_the_line(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    # What only the API refuses: a file name with a line break in it.
    tf = work(newest, fake_api.environment, vm('initrd = { image = "demo/initrd:1", filename = "a\\nb" }'))
    refused = tf.apply(expect=1)
    assert "Cannot declare this microVM as planned" in refused.plain
    assert line_of(vm("initrd"), "initrd") in refused.plain
    assert 'initrd = { image = "demo/initrd:1", filename = "a\\nb" }' in refused.plain
    # What the provider knows by itself is refused while planning.
    tf.write(vm().replace("memory_in_mb = 128", "memory_in_mb = 1"))
    refused = tf.plan()
    assert refused.exit_code == 1
    assert "1 is not a whole number between 64 and 1048576" in refused.plain
    assert line_of(vm(), "memory_in_mb") in refused.plain
    tf.write(vm())
    tf.apply()
    tf.destroy()


def test_a_provider_without_configuration_says_what_is_missing(newest: Flavor, work: Work) -> None:
    tf = work(newest, {}, HEADER + 'provider "flintlock" {}\n\nresource "flintlock_namespace" "a" {\n  name = "a"\n}\n')
    tf.run("validate", "-no-color")
    refused = tf.plan(expect=1)
    for name, variable in (("endpoints", "FLINTLOCK_ENDPOINTS"), ("token", "FLINTLOCK_TOKEN")):
        assert f"The provider's {name} is missing" in refused.plain
        assert variable in refused.plain
    assert 'in provider "flintlock"' in refused.plain


def test_a_provider_configured_by_an_unknown_plans_and_applies(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    files = fake_api.environment
    provider = f"""
resource "terraform_data" "token" {{
  input = "{files["FLINTLOCK_TOKEN"]}"
}}

provider "flintlock" {{
  endpoints = ["{files["FLINTLOCK_ENDPOINTS"]}"]
  ca_file   = "{files["FLINTLOCK_CA_FILE"]}"
  token     = terraform_data.token.output
}}
"""
    tf = work(newest, {}, vm() + provider)
    apply_and_settle(tf)
    tf.destroy()


def test_state_of_an_older_provider_is_upgraded(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm())
    tf.apply()

    def age(instance: dict[str, dict[str, object]]) -> None:
        for name in ("drift_policy", "wait_for", "annotations", "recovery", "timeouts"):
            instance["attributes"].pop(name)
        instance["attributes"]["forgotten_long_ago"] = True

    change_state(tf, ADDRESS, age)
    assert_plan_empty(tf)
    tf.destroy()


def test_the_mirror_keeps_its_hash(newest: Flavor, fake_api: FakeApi, work: Work) -> None:
    tf = work(newest, fake_api.environment, vm())
    tf.apply()
    tf.run("init", "-no-color", "-lockfile=readonly")
    tf.destroy()


def test_run_by_hand_it_says_what_it_is() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-m", "provider_shim"], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 1
    assert "Terraform provider for Flintlock" in done.stderr
    assert done.stdout == ""
