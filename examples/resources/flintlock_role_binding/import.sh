terraform import flintlock_role_binding.web_ci web-ci
