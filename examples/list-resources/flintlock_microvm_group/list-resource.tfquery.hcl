list "flintlock_microvm_group" "web" {
  provider = flintlock

  config {
    namespace = "web"
  }
}
