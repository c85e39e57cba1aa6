"""Raft cores driven in one process from a seed: virtual time, a network and disks that fail, invariants after every
step. `world` holds the parts together, `actions` is the vocabulary of a schedule, `invariants` says what must hold.
"""
