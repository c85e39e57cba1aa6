list "flintlock_microvm" "front" {
  provider = flintlock

  config {
    namespace = "web"
    labels    = { tier = "front" }
  }
}
