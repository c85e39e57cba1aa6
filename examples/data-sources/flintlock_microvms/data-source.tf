data "flintlock_microvms" "web" {
  namespace = "demo"
  labels    = { app = "web" }
}

output "where_they_run" {
  value = { for vm in data.flintlock_microvms.web.microvms : vm.name => vm.host }
}
