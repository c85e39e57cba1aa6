"""A front's two servers over its core, the agents' gateway and the API, and what they are given to serve."""

from __future__ import annotations

from importlib.metadata import version

from controlplane.api.gateway import Gateway
from controlplane.api.http.app import Application, create_app
from controlplane.api.http.credentials import Credentials
from controlplane.api.http.protocol import ConnectionLimits
from controlplane.api.http.rates import Rate
from controlplane.api.http.server import ApiServer
from controlplane.api.http.settings import ApiSettings
from controlplane.api.http.token_uses import TokenUses
from controlplane.backup.schedule import BackupSchedule
from controlplane.bootstrap.core import Core
from controlplane.bootstrap.forecast import forecast_of
from controlplane.consensus.configuration import Configuration, encode
from controlplane.identity.oidc import OidcTokens
from controlplane.identity.tokens import TokenAuthenticator
from controlplane.issuance.issuer import ClusterIssuer
from controlplane.ports import NodeView
from controlplane.ports.secrets import Vault
from controlplane.reconcile.hostwatch import HostWatch
from controlplane.reconcile.leases import LeaseKeeper
from controlplane.replica.snapshots import Snapshots
from controlplane.settings import split_address


def open_gateway(core: Core, watch: HostWatch, issuer: ClusterIssuer | None, vault: Vault | None) -> Gateway:
    settings, replica = core.settings, core.replica
    return Gateway(
        node=settings.node,
        cluster_id=settings.cluster_id,
        reader=replica,
        proposer=replica,
        ids=core.ids,
        clock=core.clock,
        nodes=core.addresses.gateways,
        tls=settings.tls,
        listen=settings.gateway.listen,
        keeper=LeaseKeeper(replica, core.clock, core.ledger, settings.lease),
        leader=lambda: replica.leader,
        lease_ttl_s=settings.lease.ttl_s,
        view=lambda: NodeView(contact=replica.contact, revision=replica.state.revision, waits_s=watch.waits_s),
        issuer=issuer,
        vault=vault,
    )


def open_snapshots(core: Core) -> Snapshots:
    return Snapshots(
        fresh=core.replica.fresh_at,
        status=core.log.status,
        configuration=lambda status: encode(Configuration(status.incarnation, tuple(status.members))),
        clock=core.clock,
        ids=core.ids,
    )


def open_app(
    core: Core,
    gateway: Gateway,
    snapshots: Snapshots,
    backups: BackupSchedule | None,
    issuer: ClusterIssuer | None,
    vault: Vault | None,
    token_uses: TokenUses,
) -> Application:
    settings, replica = core.settings, core.replica
    return create_app(
        reader=replica,
        proposer=replica,
        agents=gateway.link,
        nodes=gateway.link,
        log=core.log,
        members=core.log,
        snapshots=snapshots,
        forecast=forecast_of,
        backup=lambda: backups.status() if backups is not None else None,
        identity=Credentials(
            file=TokenAuthenticator.from_file(settings.tokens_file),
            reader=replica,
            clock=core.clock,
            uses=token_uses,
            issuers=OidcTokens(settings.oidc) if settings.oidc else None,
        ),
        gc_refused=core.gc_refused,
        clock=core.clock,
        ids=core.ids,
        settings=_api_settings(core),
        signer=issuer,
        vault=vault,
    )


def _api_settings(core: Core) -> ApiSettings:
    settings, limits = core.settings, core.settings.http.limits
    return ApiSettings(
        node=settings.node,
        version=version("flintlock-controlplane"),
        addresses=core.addresses.apis,
        providers_dir=settings.providers_dir,
        gateways=core.addresses.gateways,
        failover=core.limits,
        gc_policy=settings.gc.policy,
        gc_per_round=settings.gc.per_round,
        api_token_ttl_s=settings.api_tokens.ttl_s,
        api_token_max_ttl_s=settings.api_tokens.max_ttl_s,
        max_watchers=limits.watchers,
        watchers_per_identity=limits.watchers_per_identity,
        identity_rate=Rate(limits.identity_per_s, limits.identity_burst),
        stranger_rate=Rate(limits.stranger_per_s, limits.stranger_burst),
    )


def open_server(core: Core, app: Application, grace_s: float) -> ApiServer:
    """`grace_s`: for the requests in flight when it stops."""
    settings, limits = core.settings, core.settings.http.limits
    host, port = split_address(settings.http.listen)
    connections = ConnectionLimits(
        connections=limits.connections, per_address=limits.connections_per_address, head_timeout_s=limits.head_timeout_s
    )
    return ApiServer(app, host=host, port=port, tls=settings.tls, grace_s=grace_s, limits=connections)
