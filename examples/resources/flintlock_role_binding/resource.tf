# The pipeline of the web team operates its own namespace, and nothing else.
resource "flintlock_role_binding" "web_ci" {
  name       = "web-ci"
  role       = "operator"
  namespaces = ["web"]

  subjects = [
    { kind = "token", name = "web-ci" },
    { kind = "group", name = "web-team" },
  ]
}
