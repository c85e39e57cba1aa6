"""Which authorities a member trusts: what lies in its `tls.ca`, and how that follows the cluster.

Whoever is told of authorities adds them, and drops those that it is told were retired. What the cluster does not speak
of stays: it may be an operator's own, or from before a restore.
"""

from __future__ import annotations

from collections.abc import Collection

from cryptography import x509

from controlplane.identity import issuing, storage
from controlplane.identity.files import TlsFiles
from controlplane.identity.names import IdentityError

MAX_TRUSTED = 32


def follow(files: TlsFiles, authorities: str, retired: Collection[str] = ()) -> bool:
    """Trust `authorities` (PEM, the one that signs first) and not those with the fingerprints `retired`.

    Gives whether that was news; the file is replaced as a whole. Raises IdentityError and changes nothing when
    `authorities` holds no certificate, or what would be left is none or too many; OSError.
    """
    present = files.ca.read_bytes()
    told = _read(authorities.encode(), "what is to be trusted")
    wanted = {issuing.fingerprint(each): each for each in told}
    for each in _read(present, str(files.ca)):
        wanted.setdefault(issuing.fingerprint(each), each)
    left = [each for name, each in wanted.items() if name not in retired]
    if not 1 <= len(left) <= MAX_TRUSTED:
        raise IdentityError(f"{files.ca}: it would hold {len(left)} authorities; between 1 and {MAX_TRUSTED} may be")
    data = b"".join(map(issuing.certificate_pem, left))
    if data == present:
        return False
    storage.replace(files.ca, data, mode=0o644)
    return True


def _read(pem: bytes, name: str) -> list[x509.Certificate]:
    """Raises IdentityError."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise IdentityError(f"{name}: no PEM certificates: {error}") from None
