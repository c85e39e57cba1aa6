resource "flintlock_failover_policy" "patient" {
  name = "patient"

  # A host that reboots within five minutes keeps its microVMs.
  restart = "delayed"
  delay_s = 300

  # Before everything of a lower priority, but no more than 20 in a minute.
  priority       = 10
  max_per_minute = 20
}
