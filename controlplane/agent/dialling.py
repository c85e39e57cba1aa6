"""How a node's gateway is dialled: mutual TLS with the files as they are now."""

from __future__ import annotations

from typing import Any

import grpc

from controlplane.identity.files import TlsFiles

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # Every session has a connection of its own: a shared one would share its backoff too.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
]


def credentials(tls: TlsFiles) -> grpc.ChannelCredentials:
    """Read anew for every connection, so that renewed certificates need no restart. Raises OSError."""
    return grpc.ssl_channel_credentials(
        root_certificates=tls.ca.read_bytes(),
        private_key=tls.key.read_bytes(),
        certificate_chain=tls.certificate.read_bytes(),
    )
