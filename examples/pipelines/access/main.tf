# What an administrator applies once: the namespace, and what the two tokens of the pipelines may do in it. Without these
# bindings the tokens may do nothing.

terraform {
  required_version = ">= 1.8"
  required_providers {
    flintlock = {
      source = "microscaler/flintlock"
    }
  }
}

provider "flintlock" {}

resource "flintlock_namespace" "web" {
  name         = "web"
  max_microvms = 20
}

# Detection looks, and can change nothing: its token may lie in every scheduled job.
resource "flintlock_role_binding" "detect" {
  name       = "drift-detect"
  role       = "viewer"
  namespaces = [flintlock_namespace.web.name]
  subjects   = [{ kind = "token", name = "drift-detect" }]
}

# Repair operates one namespace. Its token belongs to the job behind the approval, and to nothing else.
resource "flintlock_role_binding" "repair" {
  name       = "drift-repair"
  role       = "operator"
  namespaces = [flintlock_namespace.web.name]
  subjects   = [{ kind = "token", name = "drift-repair" }]
}
