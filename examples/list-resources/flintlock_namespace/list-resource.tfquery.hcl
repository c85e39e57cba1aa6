list "flintlock_namespace" "web" {
  provider = flintlock

  config {
    labels = { team = "web" }
  }
}
