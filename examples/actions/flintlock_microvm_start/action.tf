# terraform apply -invoke=action.flintlock_microvm_start.db
action "flintlock_microvm_start" "db" {
  config {
    namespace = "data"
    name      = "db"
  }
}
