# terraform apply -invoke=action.flintlock_gc_run.failed
action "flintlock_gc_run" "failed" {
  config {
    only  = ["failed_microvm", "leftover"]
    limit = 50
  }
}
