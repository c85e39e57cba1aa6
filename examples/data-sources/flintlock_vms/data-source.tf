data "flintlock_vms" "all" {}

output "states" {
  value = { for vm in data.flintlock_vms.all.vms : vm.spec.id => vm.status.state }
}
