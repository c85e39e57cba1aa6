terraform import flintlock_namespace.demo demo
