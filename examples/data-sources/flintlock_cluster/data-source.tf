data "flintlock_cluster" "this" {}

output "unreachable_nodes" {
  value = [for node in data.flintlock_cluster.this.nodes : node.node if !node.reachable]
}
