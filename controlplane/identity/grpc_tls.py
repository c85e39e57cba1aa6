"""gRPC speaks TLS 1.3 and nothing older.

gRPC for Python has no setting for the version of TLS. It takes a list of the cipher suites of TLS 1.2, once per process
and from the environment; those of TLS 1.3 are another list, which nobody can change. With a suite for pre-shared keys
alone, of which there are none, a handshake of TLS 1.2 finds no suite in common and fails on either side.
"""

from __future__ import annotations

import os

VARIABLE = "GRPC_SSL_CIPHER_SUITES"
_NO_KEY_IS_SHARED = "ECDHE-PSK-AES128-CBC-SHA"


def require_tls13() -> None:
    """For this process. Called before its first connection; what the environment says already stays."""
    os.environ.setdefault(VARIABLE, _NO_KEY_IS_SHARED)
