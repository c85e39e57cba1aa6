# One for the whole cluster. What is unset is kept for ever, or as long as its default says.
resource "flintlock_gc_policy" "this" {
  failed_microvm_after_s      = 86400
  unmanaged_microvm_after_s   = 604800
  leftover_after_s            = 3600
  quarantined_volumes_after_s = 604800
}
