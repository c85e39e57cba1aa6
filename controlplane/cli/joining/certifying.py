"""A certificate for a node from its own files, while the cluster is down."""

from __future__ import annotations

import datetime
from pathlib import Path

from controlplane import settings
from controlplane.cli.errors import CliError
from controlplane.identity import issuing, renewing
from controlplane.identity.names import IdentityError, Party
from controlplane.issuance.founding import AuthorityFile
from controlplane.sealing import KeyRing, SealingError
from controlplane.settings import NodeSettings, SettingsError


def certify_node(config: Path) -> str:
    """Replaces the certificate of the node with these settings; gives what was done. Raises CliError."""
    try:
        node = settings.read_node(config)
    except SettingsError as error:
        raise CliError(str(error), hint="docs/guides/settings.md lists every setting") from None
    if node.authority is None:
        raise CliError(f"{config}: authority: there is none: the certificates of this cluster come from elsewhere")
    try:
        issuer = AuthorityFile.load(node.authority.file).issuer(KeyRing.load(node.authority.keys_file))
        ends = _certify(node, issuer, life_s=node.authority.node_life_s)
    except (IdentityError, SealingError, OSError) as error:
        raise CliError(str(error)) from None
    return f"Node {node.node} has a certificate until {ends:%Y-%m-%d %H:%M:%S} UTC: {node.tls.certificate}"


def _certify(node: NodeSettings, issuer: issuing.Issuer, *, life_s: int) -> datetime.datetime:
    """Raises IdentityError, OSError."""
    certificate = issuer.issue(
        Party(node.cluster_id, "node", node.node),
        issuing.requested_key(renewing.request(node.tls)),
        life=datetime.timedelta(seconds=life_s),
        now=datetime.datetime.now(datetime.UTC),
        addresses=settings.dialled_at(node),
    )
    renewing.adopt(node.tls, issuing.certificate_pem(certificate).decode(), node.tls.ca.read_text())
    return certificate.not_valid_after_utc
