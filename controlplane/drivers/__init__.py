"""The technologies that run microVMs on a host, one package each, all behind `ports.HostDriver`.

A driver is idempotent and keyed by the control plane's uid; it holds no policy and talks to no other driver. What every
one of them must do is written as tests in `tests/acceptance/drivers/conformance.py`.
"""
