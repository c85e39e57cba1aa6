"""Runners: woken by events, they read the whole state, decide with `decide`, and act through ports."""
