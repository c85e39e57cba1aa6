locals {
  base = "#cloud-config\npackages: [curl]\nusers: [{ name: ops }]\n"
}

output "user_data" {
  value = provider::flintlock::cloud_init_merge(local.base, "#cloud-config\npackages: [nginx]\n")
}
