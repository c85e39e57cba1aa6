"""Secrets that users declare: sealed before they are proposed, opened when their host is told what to run.

`values` is the cryptography, `vault` finds the keys in the state, `resealing` ends a rotation on the leader.
"""
