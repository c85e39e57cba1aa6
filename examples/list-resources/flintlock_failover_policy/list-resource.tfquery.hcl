list "flintlock_failover_policy" "web" {
  provider = flintlock

  config {
    labels = { team = "web" }
  }
}
