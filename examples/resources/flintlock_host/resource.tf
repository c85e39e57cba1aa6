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

# Being emptied: what may run elsewhere is moved there, two microVMs at a time.
resource "flintlock_host" "h3" {
  name       = "h3"
  mode       = "drain"
  evacuation = { max_parallel = 2 }
}
