data "flintlock_drift" "web" {
  namespace = "web"
  classes   = ["drifted", "unmanaged"]
}

# A warning in every plan for as long as something differs.
check "nothing_drifted" {
  assert {
    condition     = length(data.flintlock_drift.web.microvms) == 0
    error_message = "Drift: ${join(", ", data.flintlock_drift.web.microvms[*].name)}"
  }
}
