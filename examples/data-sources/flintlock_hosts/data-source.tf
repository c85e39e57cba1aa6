data "flintlock_hosts" "rack1" {
  labels = { rack = "r1" }
}

output "ready_hosts" {
  value = [for host in data.flintlock_hosts.rack1.hosts : host.name if host.phase == "ready"]
}
