# Every resource type and data source of the provider, every attribute at least once. The variables are what tests change.
terraform {
  required_providers {
    flintlock = { source = "microscaler/flintlock" }
  }
}

variable "note" { default = "first" }             # live, of every type
variable "frozen" { default = "paused" }          # live: the power state of one microVM
variable "drift_policy" { default = "report" }    # live
variable "memory_in_mb" { default = 256 }         # restarts the guest
variable "console" { default = "ttyS0" }          # restarts the guest
variable "root_image" { default = "demo/root:1" } # another microVM
variable "secret_version" { default = 1 }         # declares the secret again
variable "secret" {
  default   = "of nobody"
  ephemeral = true
}

resource "flintlock_host" "this" {
  for_each    = { h1 = "r1", h2 = "r2" }
  name        = each.key
  labels      = { rack = each.value }
  annotations = { note = var.note }
  schedulable = true
  mode        = "active"
  evacuation  = { max_parallel = 2, allow_data_loss = true }
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_host" "plain" {
  name   = "h3"
  labels = { rack = "r3" }
}

resource "flintlock_namespace" "all" {
  name             = "all"
  labels           = { team = "a" }
  annotations      = { "example.com/note" = var.note }
  max_microvms     = 10
  max_vcpu         = 40
  max_memory_in_mb = 8192
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_namespace" "plain" {
  name = "plain"
}

resource "flintlock_placement_policy" "apart" {
  name                  = "apart"
  labels                = { kind = "web" }
  annotations           = { note = var.note }
  required_host_labels  = { rack = "r1" }
  preferred_host_labels = { rack = "r1" }
  spread                = { by = "rack", max_per = 5, match_labels = { app = "web" } }
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_placement_policy" "plain" {
  name = "plain"
}

resource "flintlock_failover_policy" "patient" {
  name           = "patient"
  labels         = { kind = "web" }
  annotations    = { note = var.note }
  restart        = "delayed"
  delay_s        = 300
  priority       = 10
  max_per_minute = 20
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_failover_policy" "plain" {
  name = "plain"
}

resource "flintlock_gc_policy" "this" {
  labels                      = { kind = "web" }
  annotations                 = { note = var.note }
  failed_microvm_after_s      = 86400
  unmanaged_microvm_after_s   = 604800
  lost_host_after_s           = 604800
  lost_tombstone_after_s      = 604800
  leftover_after_s            = 3600
  quarantined_volumes_after_s = 172800
  finished_operation_after_s  = 3600
  audit_records_after_s       = 7776000
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_role" "operators" {
  name        = "operators"
  labels      = { team = "a" }
  annotations = { note = "kept" }
  rules = [
    { verbs = ["read"], kinds = ["MicroVM", "Operation"], namespaces = ["all"], names = ["full", "pinned"] },
    { verbs = ["act"], kinds = ["MicroVM"], labels = { app = "web" } },
  ]
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_role_binding" "ci" {
  name        = "ci"
  labels      = { team = "a" }
  annotations = { note = "kept" }
  role        = flintlock_role.operators.name
  namespaces  = [flintlock_namespace.all.name]
  subjects    = [{ kind = "token", name = "ci" }, { kind = "group", name = "web-team" }]
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_microvm_group" "full" {
  name        = "group"
  namespace   = flintlock_namespace.all.name
  labels      = { app = "group" }
  annotations = { note = "kept" }
  replicas    = 0
  template = {
    vcpu         = 1
    memory_in_mb = 128
    kernel = {
      image              = "demo/kernel:6.1"
      filename           = "boot/vmlinux"
      cmdline            = { quiet = "" }
      add_network_config = true
    }
    initrd = { image = "demo/initrd:1", filename = "boot/initrd" }
    root_volume = {
      kind             = "ephemeral"
      container_source = "demo/root:1"
      is_read_only     = false
      mount_point      = "/"
      partition_id     = "0fc63daf-8483-4772-8e79-3d69d8477de4"
      size_in_mb       = 64
    }
    additional_volumes = {
      data  = { kind = "local", size_in_mb = 16, mount_point = "/data", partition_id = "1" }
      seed  = { container_source = "demo/seed:1", is_read_only = true }
      share = { kind = "shared", virtiofs_source = "/srv/share" }
    }
    interfaces   = { eth1 = { type = "tap", bridge_name = "br0" } }
    metadata     = { user-data = "#cloud-config\n" }
    provider     = "simulated"
    drift_policy = "repair"
    placement    = { policy = flintlock_placement_policy.plain.name, required_host_labels = { rack = "r1" } }
    recovery = {
      on_host_failure = "restart_elsewhere"
      on_detach       = "pause"
      allow_data_loss = true
      policy          = flintlock_failover_policy.plain.name
    }
  }
  spread   = { by = "rack", max_per = 2 }
  rollout  = { max_surge = 0, max_unavailable = 1, ready_deadline_s = 60 }
  wait_for = "ready"
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
}

resource "flintlock_microvm_group" "plain" {
  name      = "bare"
  namespace = flintlock_namespace.all.name
  replicas  = 0
  template = {
    vcpu         = 1
    memory_in_mb = 128
    kernel       = { image = "demo/kernel:6.1" }
    root_volume  = { virtiofs_source = "/srv/root" }
    placement    = { spread = { by = "rack", max_per = 2, match_labels = { app = "group" } } }
  }
}

resource "flintlock_microvm" "full" {
  name         = "full"
  namespace    = flintlock_namespace.all.name
  labels       = { app = "web", "example.com/tier" = "front" }
  annotations  = { note = var.note }
  vcpu         = 2
  memory_in_mb = var.memory_in_mb
  kernel = {
    image              = "demo/kernel:6.1"
    filename           = "boot/vmlinux"
    cmdline            = { console = var.console, quiet = "" }
    add_network_config = true
  }
  initrd = { image = "demo/initrd:1", filename = "boot/initrd" }
  root_volume = {
    kind             = "ephemeral"
    container_source = var.root_image
    is_read_only     = false
    mount_point      = "/"
    partition_id     = "0fc63daf-8483-4772-8e79-3d69d8477de4"
    size_in_mb       = 64
  }
  additional_volumes = {
    data  = { kind = "local", size_in_mb = 16, mount_point = "/data", partition_id = "1" }
    seed  = { container_source = "demo/seed:1", is_read_only = true }
    share = { kind = "shared", virtiofs_source = "/srv/share" }
  }
  interfaces = {
    eth1 = {
      type        = "tap"
      guest_mac   = "02:00:00:00:00:01"
      bridge_name = "br0"
      address = {
        address     = "10.0.0.2/24"
        gateway     = "10.0.0.1"
        nameservers = ["10.0.0.1", "2001:db8::53"]
      }
    }
    eth2 = { type = "macvtap" }
  }
  metadata     = { user-data = "#cloud-config\n", meta-data = "instance-id: full" }

  sensitive_metadata = { vendor-data = "#cloud-config\n# secret\n" }

  driver       = "simulated"
  power_state  = "running"
  drift_policy = "repair"
  placement    = { policy = flintlock_placement_policy.apart.name }
  recovery     = { on_host_failure = "never" }
  wait_for     = "ready"
  timeouts {
    create = "1m"
    update = "1m"
    delete = "1m"
  }
  depends_on = [flintlock_host.this]
}

resource "flintlock_microvm" "spread" {
  for_each     = toset(["a", "b"])
  name         = "spread-${each.key}"
  namespace    = flintlock_namespace.all.name
  labels       = { app = "spread" }
  vcpu         = 1
  memory_in_mb = 128
  kernel       = { image = "demo/kernel:6.1" }
  root_volume  = { virtiofs_source = "/srv/root" }
  drift_policy = var.drift_policy
  placement = {
    required_host_labels = { rack = each.key == "a" ? "r2" : "r3" }
    spread               = { by = "host", max_per = 1, match_labels = { app = "spread" } }
  }
  recovery = {
    on_host_failure = "restart_elsewhere"
    on_detach       = "stop"
    policy          = flintlock_failover_policy.patient.name
  }
  depends_on = [flintlock_host.this, flintlock_host.plain]
}

resource "flintlock_microvm" "pinned" {
  name         = "pinned"
  namespace    = flintlock_namespace.all.name
  vcpu         = 1
  memory_in_mb = 128
  kernel       = { image = "demo/kernel:6.1" }
  placement    = { host = flintlock_host.this["h2"].name }
  power_state  = "stopped"
  wait_for     = "none"

  sensitive_metadata_wo         = { vendor-data = var.secret }
  sensitive_metadata_wo_version = var.secret_version
}

resource "flintlock_microvm" "frozen" {
  name         = "frozen"
  namespace    = flintlock_namespace.all.name
  vcpu         = 1
  memory_in_mb = 128
  kernel       = { image = "demo/kernel:6.1" }
  power_state  = var.frozen
  depends_on   = [flintlock_host.this]
}

data "flintlock_cluster" "this" {}

data "flintlock_hosts" "r1" {
  labels     = { rack = "r1" }
  depends_on = [flintlock_host.this]
}

data "flintlock_microvms" "web" {
  namespace  = flintlock_namespace.all.name
  labels     = { app = "web" }
  host       = "h1"
  depends_on = [flintlock_microvm.full]
}

data "flintlock_vms" "all" {
  namespace  = flintlock_namespace.all.name
  depends_on = [flintlock_microvm.full, flintlock_microvm.spread, flintlock_microvm.pinned, flintlock_microvm.frozen]
}

output "cluster_id" { value = data.flintlock_cluster.this.cluster_id }
output "nodes" { value = [for node in data.flintlock_cluster.this.nodes : node.node] }
output "hosts" { value = { for host in data.flintlock_hosts.r1.hosts : host.name => host.declared } }
output "placed" { value = { for vm in data.flintlock_microvms.web.microvms : vm.name => vm.host } }
output "vms" { value = [for vm in data.flintlock_vms.all.vms : vm.spec.id] }
output "uids" { value = { for key, vm in flintlock_microvm.spread : key => vm.uid } }

data "flintlock_drift" "all" {
  namespace  = flintlock_namespace.all.name
  classes    = ["drifted", "unmanaged"]
  depends_on = [flintlock_microvm.full, flintlock_microvm.spread, flintlock_microvm.pinned, flintlock_microvm.frozen]
}

output "drifted" { value = data.flintlock_drift.all.microvms[*].name }

data "flintlock_events" "full" {
  kind          = "MicroVM"
  namespace     = flintlock_namespace.all.name
  name          = flintlock_microvm.full.name
  host          = "h1"
  reasons       = ["Placed", "Running"]
  type          = "normal"
  since         = "2026-01-01T00:00:00Z"
  from_revision = 1
  limit         = 5000
  depends_on    = [flintlock_microvm.full]
}

data "flintlock_placement" "more" {
  namespace = flintlock_namespace.all.name
  microvms = {
    more = {
      vcpu         = 1
      memory_in_mb = 64
      kernel       = { image = "demo/kernel:6.1" }
      placement    = { host = "h1" }
    }
    huge = {
      vcpu         = 64
      memory_in_mb = 64
      kernel       = { image = "demo/kernel:6.1" }
    }
  }
  groups = {
    pair = {
      replicas = 2
      template = { vcpu = 1, memory_in_mb = 64, kernel = { image = "demo/kernel:6.1" } }
      spread   = { by = "host", max_per = 1 }
    }
  }
  depends_on = [flintlock_microvm.full, flintlock_microvm.spread, flintlock_microvm.pinned, flintlock_microvm.frozen]
}

output "told" { value = distinct(data.flintlock_events.full.events[*].reason) }
output "would_go" { value = { for each in data.flintlock_placement.more.placements : each.name => each.fits } }
output "functions" {
  value = {
    memory    = provider::flintlock::memory_in_mb("1.5Gi")
    selector  = provider::flintlock::label_selector("app=web,tier=front")
    user_data = provider::flintlock::cloud_init_merge("#cloud-config\na: [1]\n", "#cloud-config\na: [2]\n")
  }
}
