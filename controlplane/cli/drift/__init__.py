"""Drift for pipelines: `report` is what was found, `terraform` adds a plan to it, and a module writes each format."""
