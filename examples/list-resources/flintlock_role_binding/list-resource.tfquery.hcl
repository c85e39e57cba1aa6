list "flintlock_role_binding" "web" {
  provider = flintlock

  config {
    labels = { team = "web" }
  }
}
