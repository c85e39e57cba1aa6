resource "flintlock_namespace" "demo" {
  name             = "demo"
  labels           = { team = "web" }
  max_microvms     = 20
  max_vcpu         = 40
  max_memory_in_mb = 40960
}
