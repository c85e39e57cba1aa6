# terraform apply -invoke=action.flintlock_host_drain.h4
action "flintlock_host_drain" "h4" {
  config {
    host         = "h4"
    maintenance  = true
    max_parallel = 4
    timeout      = "1h"
  }
}
