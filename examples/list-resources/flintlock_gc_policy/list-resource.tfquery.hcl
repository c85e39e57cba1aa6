list "flintlock_gc_policy" "this" {
  provider = flintlock
}
