variable "operator_key" {
  type      = string
  sensitive = true
}

resource "flintlock_namespace" "demo" {
  name = "demo"
}

resource "flintlock_microvm" "web" {
  for_each = toset(["a", "b", "c"])

  name         = "web-${each.key}"
  namespace    = flintlock_namespace.demo.name
  labels       = { app = "web" }
  vcpu         = 1
  memory_in_mb = 128

  kernel = { image = "demo/kernel" }
  initrd = { image = "demo/initrd:1" }

  root_volume = {
    container_source = "demo/root:1"
  }
  additional_volumes = {
    data = { kind = "local", size_in_mb = 256 }
  }
  interfaces = {
    eth1 = { type = "tap" }
  }
  metadata = {
    user-data = file("${path.module}/user-data.yaml")
  }
  sensitive_metadata = { # kept sealed, and never shown
    vendor-data = "#cloud-config\nssh_authorized_keys: [${var.operator_key}]\n"
  }

  placement = {
    spread = { by = "host", max_per = 1, match_labels = { app = "web" } }
  }
  recovery = {
    on_host_failure = "restart_elsewhere"
    on_detach       = "stop"
    allow_data_loss = true # without it, the local volume keeps it from being restarted elsewhere
  }
  drift_policy = "repair"
  wait_for     = "ready"

  timeouts {
    create = "5m"
  }
}
