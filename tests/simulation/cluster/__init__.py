"""The whole cluster in one process, in virtual time, from one seed (docs/adr/0120)."""
