list "flintlock_placement_policy" "web" {
  provider = flintlock

  config {
    labels = { team = "web" }
  }
}
