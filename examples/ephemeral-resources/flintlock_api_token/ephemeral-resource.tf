# A token for what this run does elsewhere: it may read one namespace, and ends with the run.
ephemeral "flintlock_api_token" "smoke_test" {
  groups     = ["web-team"]
  verbs      = ["read"]
  namespaces = ["web"]
  ttl        = "30m"
}
