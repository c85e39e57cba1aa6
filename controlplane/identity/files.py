"""Where one party's TLS material lies on disk. Every connection of the product uses such a triple."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class TlsFiles:
    ca: Path
    """PEM: the authority that peers are verified against."""
    certificate: Path
    """PEM: the own certificate."""
    key: Path
    """PEM, PKCS#8, not encrypted; mode 0600."""
