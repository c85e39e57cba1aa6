"""`flintlock_microvm`: `attributes` says what a user writes, `waiting` waits for the guest, `resource` ties it together."""
