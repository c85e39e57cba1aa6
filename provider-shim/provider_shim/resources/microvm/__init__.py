"""`flintlock_microvm`: what a user writes (`attributes`), `waiting`, `drift`, and the `resource` over them."""
