# Would three more of these fit?
data "flintlock_placement" "more" {
  namespace = "web"

  groups = {
    front = {
      replicas = 3
      template = {
        vcpu         = 2
        memory_in_mb = 1024
        kernel       = { image = "demo/kernel" }
      }
      spread = { by = "host", max_per = 1 }
    }
  }
}

check "room_for_three" {
  assert {
    condition     = data.flintlock_placement.more.fits
    error_message = join("; ", data.flintlock_placement.more.placements[*].reason)
  }
}
