"""A conversation with a cluster of which nothing is known but the fingerprint of its authority.

The joiner has a token and no certificate to trust. It asks any node for the authority's certificate, on a connection
that proves nothing and on which it says nothing; what it gets either has the fingerprint that is in the token or is
worth nothing. Then it connects again, trusting this authority and no other, checks that a node of the cluster answers,
and only on that connection says the secret of its token.
"""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Mapping
from typing import Any

from cryptography import x509

from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.values import Json, mapping
from controlplane.identity import issuing
from controlplane.identity.names import IdentityError, party_from_peercert, require
from controlplane.settings import split_address

TIMEOUT_S = 30.0
_MAX_ANSWER = 1 << 20
_API = "/api/v2"


class Pinned:
    """One node at `HOST:PORT`, once it has shown to belong to the cluster of the token."""

    def __init__(self, server: str, fingerprint: str) -> None:
        """Raises CliError when the node is of another cluster, or does not answer."""
        self._server = server
        self._host, self._port = split_address(server)
        offered = self._call(_unverified(), None, "GET", "/join/authority")
        self.cluster_id = str(offered.get("cluster_id"))
        # Of several authorities, as while one takes the place of another, the token's is trusted and no other.
        found = _by_fingerprint(str(offered.get("authorities") or offered.get("certificate")))
        if fingerprint not in found:
            told = ", ".join(found) or "nothing that is a certificate"
            raise CliError(
                f"{server} is not of the cluster that the token is for: its authority's fingerprint is {told}, the"
                f" token's {fingerprint}",
                hint="is the address right? If it is, the authority was replaced since the token was made, or somebody"
                " is in between: nothing was said to it",
            )
        self._authority = found[fingerprint]

    def post(self, path: str, body: Mapping[str, Any]) -> Json:
        """Raises ProblemError, CliError."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        # Who answers is said by the name of a node in its certificate, and not by its address.
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_verify_locations(cadata=self._authority)
        return self._call(context, self.cluster_id, "POST", path, body)

    def _call(
        self,
        context: ssl.SSLContext,
        cluster_id: str | None,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
    ) -> Json:
        """With `cluster_id` only a node of that cluster is spoken to."""
        connection = http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=context)
        try:
            connection.connect()
            if cluster_id is not None:
                assert isinstance(connection.sock, ssl.SSLSocket)
                require(party_from_peercert(connection.sock.getpeercert()), cluster_id, "node")
            data = json.dumps(body).encode() if body is not None else None
            connection.request(method, _API + path, data, {"Content-Type": "application/json"} if data else {})
            answer = connection.getresponse()
            status, text = answer.status, answer.read(_MAX_ANSWER + 1)
        except IdentityError as error:
            raise CliError(f"{self._server}: {error}") from None
        except (OSError, http.client.HTTPException) as error:
            raise CliError(
                f"{self._server} cannot be asked: {error}", hint="is it the address of a node's API?"
            ) from None
        finally:
            connection.close()
        try:
            document = mapping(json.loads(text)) if len(text) <= _MAX_ANSWER else {}
        except ValueError:
            document = {}
        if status >= 400:
            raise ProblemError(status, document)
        return document


def _by_fingerprint(pem: str) -> dict[str, str]:
    """Each certificate (PEM) of several."""
    try:
        certificates = x509.load_pem_x509_certificates(pem.encode())
    except ValueError:
        return {}
    return {issuing.fingerprint(each): issuing.certificate_pem(each).decode() for each in certificates}


def _unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
