"""The gateway's side of TLS: it asks for the files' present content at every handshake, so renewed certificates count
from the next connection on.
"""

from __future__ import annotations

import grpc
import structlog

from controlplane.identity.files import TlsFiles
from controlplane.identity.reloading import stamp

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def server_credentials(files: TlsFiles) -> grpc.ServerCredentials:
    """Clients have to show a certificate. Raises OSError."""
    known, configuration = stamp(files), _configuration(files)

    def present() -> grpc.ServerCertificateConfiguration:
        """Called in gRPC's threads, at every handshake."""
        nonlocal known, configuration
        if (found := stamp(files)) != known:
            try:
                configuration = _configuration(files)
                known = found
            except OSError as error:
                log.warning("certificates not reloaded", reason=str(error))
        return configuration

    return grpc.dynamic_ssl_server_credentials(configuration, present, require_client_authentication=True)


def _configuration(files: TlsFiles) -> grpc.ServerCertificateConfiguration:
    """Raises OSError."""
    return grpc.ssl_server_certificate_configuration(
        [(files.key.read_bytes(), files.certificate.read_bytes())], root_certificates=files.ca.read_bytes()
    )
