"""Settings that cannot work, or would show the token to the network, name their field."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from controlplane.drivers.flintlockd import FlintlockdSettings

ROOT = Path("state")
CA = Path("ca.pem")


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("endpoint", {"endpoint": "host"}),
        ("endpoint", {"endpoint": ":9090"}),
        ("endpoint", {"endpoint": "host:70000"}),
        ("cert_file", {"cert_file": CA, "ca_file": CA}),
        ("ca_file", {"cert_file": CA, "key_file": CA}),
        ("token", {"token": "t", "endpoint": "10.0.0.1:9090"}),
        ("token", {"token": "t", "endpoint": "localhost.example:9090"}),
        ("call_timeout_s", {"call_timeout_s": 0}),
        ("settle_timeout_s", {"settle_timeout_s": -1}),
        ("poll_s", {"poll_s": 0}),
        ("doubt_s", {"doubt_s": -1}),
        ("tombstone_s", {"tombstone_s": -1}),
        ("namespaces", {"namespaces": ("",)}),
    ],
)
def test_refused(field: str, values: dict[str, Any]) -> None:
    merged: dict[str, Any] = {"endpoint": "h1:9090", "state_dir": ROOT, **values}
    with pytest.raises(ValueError, match=rf"^{field}\b"):
        FlintlockdSettings(**merged)


@pytest.mark.parametrize(
    "values",
    [
        {"endpoint": "127.0.0.1:9090", "token": "t"},
        {"endpoint": "[::1]:9090", "token": "t"},
        {"endpoint": "localhost:9090", "token": "t"},
        {"endpoint": "h1.example:9090", "token": "t", "ca_file": CA},
        {"endpoint": "h1.example:9090"},
    ],
)
def test_accepted(values: dict[str, Any]) -> None:
    assert "token" not in repr(FlintlockdSettings(state_dir=ROOT, **values))
