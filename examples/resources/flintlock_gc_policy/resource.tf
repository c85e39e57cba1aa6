# One for the whole cluster. What is unset is kept for ever.
resource "flintlock_gc_policy" "this" {
  failed_microvm_after_s    = 86400
  unmanaged_microvm_after_s = 604800
}
