output "memory_in_mb" {
  value = provider::flintlock::memory_in_mb("1.5Gi") # 1536
}
