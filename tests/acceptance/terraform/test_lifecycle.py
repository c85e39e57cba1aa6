"""Apply, plan, update, replace, data sources, destroy, with no fault anywhere.

The newest Terraform is enough for what `test_both_terraforms` and `test_every_resource` do with both on a real cluster.
"""

from __future__ import annotations

from acceptance.terraform.conftest import Endpoint, Work
from acceptance.terraform.runner import Flavor, Terraform
from acceptance.terraform.steps import (
    HEADER,
    apply_and_settle,
    assert_generated_config,
    assert_plan_differs,
    assert_plan_empty,
)

FLEET = (
    HEADER
    + """
resource "flintlock_namespace" "demo" {
  name         = "acc-demo"
  max_microvms = 8
}

resource "flintlock_host" "extra" {
  name        = "acc-extra"
  labels      = { rack = "r9" }
  schedulable = false
}

resource "flintlock_placement_policy" "apart" {
  name                 = "acc-apart"
  required_host_labels = {}
  spread               = { max_per = 4 }
}

resource "flintlock_microvm" "web" {
  name               = "web"
  namespace          = flintlock_namespace.demo.name
  labels             = { app = "web" }
  vcpu               = VCPU
  memory_in_mb       = 128
  kernel             = { image = "demo/kernel:6.1", cmdline = { quiet = "" } }
  initrd             = { image = "demo/initrd:1" }
  ROOT
  metadata           = { user-data = "#cloud-config" }
  placement          = { policy = flintlock_placement_policy.apart.name }
  recovery           = {}
  wait_for           = "ready"
  timeouts {
    create = "1m"
  }
}

output "web" {
  value = flintlock_microvm.web.id
}
"""
)
VOLUMES = 'root_volume = { container_source = "demo/root:1" }\n  additional_volumes = { data = { size_in_mb = 16 } }'


def fleet(vcpu: int = 1, root: str = VOLUMES) -> str:
    return FLEET.replace("VCPU", str(vcpu)).replace("ROOT", root)


def nothing_left(endpoint: Endpoint, tf: Terraform) -> None:
    tf.destroy()
    left = [each["name"] for each in endpoint.client.pages("/microvms") if each["namespace"].startswith("acc-")]
    for collection in ("/namespaces", "/hosts", "/placementpolicies"):
        left += [each["name"] for each in endpoint.client.pages(collection) if each["name"].startswith("acc-")]
    assert left == []


def test_a_fleet_from_first_apply_to_destroy(newest: Flavor, endpoint: Endpoint, work: Work) -> None:
    tf = work(newest, endpoint.environment, fleet())
    apply_and_settle(tf)
    web = tf.resources()["flintlock_microvm.web"]
    assert (web["id"], web["power_state"], web["drift_policy"]) == ("acc-demo/web", "running", "repair")
    assert (web["labels"], web["interfaces"], web["annotations"]) == ({"app": "web"}, None, None)
    assert tf.outputs() == {"web": "acc-demo/web"}

    tf.write(fleet(vcpu=2))
    planned = assert_plan_differs(tf)
    assert "0 to add, 1 to change, 0 to destroy" in planned
    assert "will restart the guest of microVM acc-demo/web" in planned
    assert "Changing vcpu stops the guest" in planned
    apply_and_settle(tf)
    stored = endpoint.client.get("/namespaces/acc-demo/microvms/web").body
    assert (stored["uid"], stored["spec"]["vcpu"], stored["generation"]) == (web["uid"], 2, 2)

    tf.write(fleet(vcpu=2, root='root_volume = { container_source = "demo/root:2" }'))
    planned = assert_plan_differs(tf)
    assert "1 to add, 0 to change, 1 to destroy" in planned
    assert "will be replaced, and its ephemeral volumes with it" in planned
    apply_and_settle(tf)
    assert tf.resources()["flintlock_microvm.web"]["uid"] != web["uid"]
    nothing_left(endpoint, tf)


def test_a_vm_made_elsewhere_gets_its_configuration_written(flavor: Flavor, endpoint: Endpoint, work: Work) -> None:
    endpoint.client.send("PUT", "/namespaces/acc-other", body={"spec": {}})
    spec = {
        "vcpu": 1,
        "memory_in_mb": 64,
        "kernel": {"image": "demo/kernel:6.1"},
        "interfaces": {"eth1": {"address": {"address": "10.0.0.2/24"}}},
    }
    endpoint.client.send("PUT", "/namespaces/acc-other/microvms/found", body={"spec": spec, "labels": {"a": "b"}})
    tf = work(flavor, endpoint.environment, HEADER)
    blocks = (
        'import {\n  to = flintlock_microvm.found\n  id = "acc-other/found"\n}\n'
        if flavor == "path"
        else 'import {\n  to = flintlock_microvm.found\n  identity = { namespace = "acc-other", name = "found" }\n}\n'
    )
    text = assert_generated_config(tf, blocks, "flintlock_microvm.found")
    assert "10.0.0.2/24" in text
    (tf.workdir / "import.tf").unlink()
    assert_plan_empty(tf)
    tf.destroy()
    endpoint.client.send("DELETE", "/namespaces/acc-other")


def test_data_sources_show_what_is_observed(newest: Flavor, endpoint: Endpoint, work: Work) -> None:
    sources = """
data "flintlock_cluster" "this" {}
data "flintlock_hosts" "r9" {
  labels     = { rack = "r9" }
  depends_on = [flintlock_host.extra]
}
data "flintlock_microvms" "web" {
  namespace  = "acc-demo"
  labels     = { app = "web" }
  depends_on = [flintlock_microvm.web]
}
data "flintlock_vms" "all" {
  namespace  = "acc-demo"
  depends_on = [flintlock_microvm.web]
}
output "hosts" { value = [for host in data.flintlock_hosts.r9.hosts : host.name] }
output "states" { value = { for vm in data.flintlock_microvms.web.microvms : vm.name => vm.power_state } }
output "labels" { value = [for vm in data.flintlock_vms.all.vms : vm.spec.label] }
output "cluster" { value = data.flintlock_cluster.this.version }
output "failover" { value = data.flintlock_cluster.this.failover.breaker_open ? "stopped" : "ready" }
"""
    tf = work(newest, endpoint.environment, fleet() + sources)
    apply_and_settle(tf)
    outputs = tf.outputs()
    assert outputs["hosts"] == ["acc-extra"]
    assert outputs["states"] == {"web": "running"}
    assert outputs["labels"] == [{"app": "web"}]
    assert outputs["cluster"]
    assert outputs["failover"] == "ready"
    nothing_left(endpoint, tf)
