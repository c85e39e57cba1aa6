# Looks at every microVM of the namespace web, and restarts those of the front tier.
resource "flintlock_role" "restarter" {
  name = "restarter"

  rules = [
    {
      verbs      = ["read"]
      kinds      = ["MicroVM", "Operation"]
      namespaces = ["web"]
    },
    {
      verbs      = ["act"]
      kinds      = ["MicroVM"]
      namespaces = ["web"]
      labels     = { tier = "front" }
    },
  ]
}
