resource "flintlock_namespace" "demo" {
  name = "demo"
}

# Three web servers on hosts of their own. A change of the kernel replaces them one by one.
resource "flintlock_microvm_group" "web" {
  name      = "web"
  namespace = flintlock_namespace.demo.name
  replicas  = 3
  template = {
    vcpu         = 1
    memory_in_mb = 128
    kernel       = { image = "demo/kernel" }
    initrd       = { image = "demo/initrd:1" }
  }
  spread  = { by = "host" }
  rollout = { max_surge = 0, max_unavailable = 1, ready_deadline_s = 120 }
}
