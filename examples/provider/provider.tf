terraform {
  required_providers {
    flintlock = {
      source = "microscaler/flintlock"
    }
  }
}

variable "flintlock_token" {
  type      = string
  sensitive = true
}

provider "flintlock" {
  endpoints = ["https://10.0.0.1:8443", "https://10.0.0.2:8443", "https://10.0.0.3:8443"]
  token     = var.flintlock_token
  ca_file   = "${path.module}/ca.pem"
}
