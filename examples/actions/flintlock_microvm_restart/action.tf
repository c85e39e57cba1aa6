# The guest fetches its certificate when it boots, and there is a new one every month.
action "flintlock_microvm_restart" "web" {
  config {
    namespace = "web"
    name      = "front"
    timeout   = "2m"
  }
}

resource "terraform_data" "certificate_of_the_month" {
  input = "2026-11"

  lifecycle {
    action_trigger {
      events  = [after_update]
      actions = [action.flintlock_microvm_restart.web]
    }
  }
}
