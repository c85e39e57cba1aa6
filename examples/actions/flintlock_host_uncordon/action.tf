# terraform apply -invoke=action.flintlock_host_uncordon.h4
action "flintlock_host_uncordon" "h4" {
  config {
    host = "h4"
  }
}
