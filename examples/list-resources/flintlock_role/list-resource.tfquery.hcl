list "flintlock_role" "web" {
  provider = flintlock

  config {
    labels = { team = "web" }
  }
}
