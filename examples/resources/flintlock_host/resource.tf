resource "flintlock_host" "h1" {
  name   = "h1"
  labels = { rack = "r1", disk = "nvme" }
}

# Cordoned: what runs stays, nothing new comes.
resource "flintlock_host" "h2" {
  name        = "h2"
  labels      = { rack = "r2" }
  schedulable = false
}
