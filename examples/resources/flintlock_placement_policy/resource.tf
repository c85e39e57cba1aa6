resource "flintlock_placement_policy" "apart" {
  name                  = "apart"
  required_host_labels  = { disk = "nvme" }
  preferred_host_labels = { rack = "r1" }

  # At most two microVMs of the same app in one rack.
  spread = {
    by           = "rack"
    max_per      = 2
    match_labels = { app = "web" }
  }
}
