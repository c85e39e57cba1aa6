"""The flintlockd driver speaks TLS, shows its certificate, and trusts only the CA that it was given."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.flintlock_server import FlintlockService, ServerTls, serving

from controlplane.drivers.flintlockd import FlintlockdDriver, FlintlockdSettings
from controlplane.identity.authority import Authority
from controlplane.ports import DriverError


async def listing_error(settings: FlintlockdSettings) -> str | None:
    """Code of the error that listing gives; None when it works."""
    driver = FlintlockdDriver(settings)
    await driver.start()
    try:
        await driver.list()
    except DriverError as error:
        return error.code
    finally:
        await driver.stop()
    return None


async def test_mutual_tls(tmp_path: Path) -> None:
    authority = Authority.create(tmp_path / "ca", cluster_id="hosts")
    server = authority.issue_server("flintlock", tmp_path / "server")
    client = authority.issue_host("h1", tmp_path / "client")
    stranger = Authority.create(tmp_path / "other-ca", cluster_id="strangers").issue_host("h1", tmp_path / "stranger")
    tls = ServerTls(server.certificate.read_bytes(), server.key.read_bytes(), client_ca=client.ca.read_bytes())
    async with serving(FlintlockService(), tls=tls) as endpoint:
        state_dir = tmp_path / "state"

        def settings(**files: Path) -> FlintlockdSettings:
            return FlintlockdSettings(endpoint=endpoint, state_dir=state_dir, call_timeout_s=5.0, **files)  # pyright: ignore[reportArgumentType]  # only files are given

        ours = {"ca_file": client.ca, "cert_file": client.certificate, "key_file": client.key}
        assert await listing_error(settings(**ours)) is None
        assert await listing_error(settings(**(ours | {"ca_file": stranger.ca}))) == "HostUnreachable"
        assert await listing_error(settings(ca_file=client.ca)) == "HostUnreachable"
        theirs = {"cert_file": stranger.certificate, "key_file": stranger.key}
        assert await listing_error(settings(ca_file=client.ca, **theirs)) == "HostUnreachable"
        assert await listing_error(settings()) == "HostUnreachable"


async def test_unreadable_credentials_are_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing.pem"
    settings = FlintlockdSettings(endpoint="127.0.0.1:1", state_dir=tmp_path / "state", ca_file=missing)
    driver = FlintlockdDriver(settings)
    with pytest.raises(DriverError, match=str(missing)) as failure:
        await driver.start()
    assert failure.value.code == "CredentialsUnavailable"
    await driver.stop()
