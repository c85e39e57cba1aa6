# What went wrong within the last hour.
data "flintlock_events" "trouble" {
  namespace = "web"
  type      = "warning"
  since     = timeadd(plantimestamp(), "-1h")
}

# A warning in every plan for as long as the last hour had trouble.
check "a_quiet_hour" {
  assert {
    condition     = length(data.flintlock_events.trouble.events) == 0
    error_message = join("\n", [for each in data.flintlock_events.trouble.events : "${each.at} ${each.name}: ${each.message}"])
  }
  assert {
    condition     = data.flintlock_events.trouble.complete
    error_message = "The control plane remembers nothing of before ${data.flintlock_events.trouble.oldest_at}."
  }
}
