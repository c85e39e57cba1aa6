# terraform apply -invoke=action.flintlock_microvm_stop.db
action "flintlock_microvm_stop" "db" {
  config {
    namespace = "data"
    name      = "db"
  }
}
