list "flintlock_host" "nvme" {
  provider = flintlock

  config {
    labels = { disk = "nvme" }
  }
}
