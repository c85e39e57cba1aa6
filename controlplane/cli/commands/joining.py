"""flintctl init, join and token: a cluster that signs its own certificates, and who gets one."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import options, output
from controlplane.cli.errors import CliError
from controlplane.cli.joining import files
from controlplane.cli.joining.files import MemberDirectory, NodeServers, Peers
from controlplane.cli.joining.pinned import Pinned
from controlplane.cli.output import Output, OutputFormat
from controlplane.cli.values import Json, mapping, objects, text
from controlplane.identity import issuing, join_tokens
from controlplane.identity.names import IdentityError, Party
from controlplane.issuance.founding import AuthorityFile, new_authority
from controlplane.model.credentials import Sealed
from controlplane.model.types import NAME_PATTERN
from controlplane.sealing import KeyRing
from controlplane.settings import split_address

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION = re.compile(r"([1-9]\d{0,5})([smhd])")
_NAME = re.compile(NAME_PATTERN)
_HARDWARE_TYPES = Path("/sys/class/net")

DirOption = Annotated[Path, typer.Option("--dir", metavar="DIR", help="Where its files go; made if it is not there.")]
RaftOption = Annotated[str, typer.Option("--raft", metavar="HOST:PORT", help="Where the other nodes reach its log.")]
GatewayOption = Annotated[str, typer.Option("--gateway", metavar="HOST:PORT", help="Where agents dial in.")]
HttpOption = Annotated[str, typer.Option("--http", metavar="HOST:PORT", help="Where its API is.")]

token_app = options.new_app(
    """Join tokens: they let hosts and nodes in that have no certificate yet.

\b
Examples:
  flintctl token create --role host --host h7 --ttl 1h     printed once: give it to h7's operator
  flintctl token create --role node --cidr 10.0.0.0/24     for a node; needs the role admin
  flintctl token list
  flintctl token revoke 01J...
"""
)


def init(
    node: Annotated[str, typer.Option("--node", metavar="NAME", help="The first node.")],
    cluster_id: Annotated[str, typer.Option("--cluster-id", metavar="NAME", help="Never changes.")],
    directory: DirOption,
    raft: RaftOption,
    gateway: GatewayOption,
    http: HttpOption,
    host_life: Annotated[str, typer.Option(metavar="DURATION", help="How long hosts' certificates are valid.")] = "24h",
    node_life: Annotated[str, typer.Option(metavar="DURATION", help="How long nodes' certificates are valid.")] = "24h",
) -> None:
    """Make the first node of a cluster that signs its own certificates: keys, settings and the operator's token.

    \b
    Example:
      flintctl init --node n1 --cluster-id prod --dir /etc/flintlock \\
          --raft 10.0.0.1:7101 --gateway 10.0.0.1:7201 --http 10.0.0.1:7301
      flintctl node run --config /etc/flintlock/n1.yaml
    """
    _check_name(node, "--node")
    _check_name(cluster_id, "--cluster-id")
    servers = _servers(raft, gateway, http)
    lives_s = (_seconds(host_life, "--host-life"), _seconds(node_life, "--node-life"))
    there = MemberDirectory(directory, node, (*files.OF_NODE, files.TOKEN_FILE))
    now = datetime.datetime.now(datetime.UTC)
    issuer, ring, key = issuing.new_issuer(cluster_id, now=now), KeyRing.new(), issuing.new_key()
    certificate = issuer.issue(
        Party(cluster_id, "node", node),
        key.public_key(),
        life=datetime.timedelta(seconds=lives_s[1]),
        now=now,
        addresses=_hosts_of(servers),
    )
    there.secret(files.KEYS_FILE, ring.document())
    there.secret(files.AUTHORITY_FILE, new_authority(issuer, ring).model_dump_json(indent=2))
    there.public(files.CA_FILE, issuing.certificate_pem(issuer.certificate))
    there.secret(there.key.name, issuing.key_pem(key))
    there.public(there.certificate.name, issuing.certificate_pem(certificate))
    there.operator_token()
    there.node_settings(cluster_id, servers, Peers({}, {}, {}), lives_s)
    print(f"Node {node} of cluster {cluster_id} is ready in {there.path}")
    print(f"  run it    flintctl node run --config {there.settings}")
    print(f"  talk to it  FLINTLOCK_ENDPOINTS=https://{http} FLINTLOCK_CA_FILE={there.path / files.CA_FILE}")
    print(f"              FLINTLOCK_TOKEN=$(cat {there.path / files.TOKEN_FILE})")
    print("  let others in  flintctl token create --role host|node")


def join(
    server: Annotated[str, typer.Option("--server", metavar="HOST:PORT", help="The API of any node of the cluster.")],
    directory: DirOption,
    host: Annotated[str | None, typer.Option("--host", metavar="NAME", help="Join as this host.")] = None,
    node: Annotated[str | None, typer.Option("--node", metavar="NAME", help="Join as this node.")] = None,
    token: Annotated[
        str | None,
        typer.Option("--token", metavar="TOKEN", envvar="FLINTLOCK_JOIN_TOKEN", help="Better: FLINTLOCK_JOIN_TOKEN."),
    ] = None,
    raft: Annotated[str | None, typer.Option("--raft", metavar="HOST:PORT", help="Of a node: its log.")] = None,
    gateway: Annotated[
        str | None, typer.Option("--gateway", metavar="HOST:PORT", help="Of a node: for agents.")
    ] = None,
    http: Annotated[str | None, typer.Option("--http", metavar="HOST:PORT", help="Of a node: its API.")] = None,
    driver: Annotated[str, typer.Option("--driver", metavar="qemu|simulated", help="Of a host.")] = "qemu",
    images: Annotated[Path | None, typer.Option("--images", metavar="DIR", help="Of a host: its images.")] = None,
) -> None:
    """Join a cluster by a token: get a certificate, and settings that are ready to be run.

    \b
    Examples:
      FLINTLOCK_JOIN_TOKEN=flj_... flintctl join --server 10.0.0.1:7301 --host h7 --dir /etc/flintlock
      flintctl agent run --config /etc/flintlock/h7.yaml
    """
    if (host is None) == (node is None):
        raise typer.BadParameter("give exactly one of them", param_hint="--host and --node")
    name = _check_name(str(host or node), "--host" if host is not None else "--node")
    if token is None:
        raise typer.BadParameter("is required, or FLINTLOCK_JOIN_TOKEN", param_hint="--token")
    try:
        given = join_tokens.parse(token.strip())
    except IdentityError as error:
        raise CliError(str(error), hint="`flintctl token create` prints one") from None
    _check_address(server, "--server")
    servers = None if node is None else _servers(raft, gateway, http)
    chosen = _driver(driver, images, directory)
    there = MemberDirectory(directory, name, files.OF_HOST if servers is None else files.OF_NODE)
    key = issuing.new_key()
    cluster = Pinned(server, given.fingerprint)
    asked: Json = {"token": given.text, "name": name, "csr": issuing.signing_request(key).decode(), "macs": _macs()}
    if servers is not None:
        asked["node"] = {"raft": servers.raft, "gateway": servers.gateway, "api": servers.http}
    joined = cluster.post("/join", asked)
    there.secret(there.key.name, issuing.key_pem(key))
    there.public(there.certificate.name, text(joined.get("certificate")))
    there.public(files.CA_FILE, text(joined.get("authorities")))
    if servers is None:
        there.agent_settings(cluster.cluster_id, mapping(joined, "gateways"), chosen)
        print(f"Host {name} has joined cluster {cluster.cluster_id}: flintctl agent run --config {there.settings}")
        return
    _write_node(there, cluster.cluster_id, servers, mapping(joined, "node"))
    print(
        f"Node {name} has joined cluster {cluster.cluster_id} as a learner: flintctl node run --config {there.settings}"
    )
    print(f"  once it runs, give it a vote: flintctl raft promote {name}")
    if message := text(mapping(joined, "node").get("message")):
        print(f"  but it is not in the log yet: {message}")


@token_app.command("create")
def create_token(
    ctx: typer.Context,
    role: Annotated[str, typer.Option("--role", metavar="host|node", help="What joins by it.")],
    host: Annotated[str | None, typer.Option("--host", metavar="NAME", help="Only the host of this name.")] = None,
    node: Annotated[str | None, typer.Option("--node", metavar="NAME", help="Only the node of this name.")] = None,
    mac: Annotated[list[str] | None, typer.Option("--mac", metavar="MAC", help="Only who has it; repeat it.")] = None,
    cidr: Annotated[list[str] | None, typer.Option("--cidr", metavar="NET", help="Only from there; repeat it.")] = None,
    ttl: Annotated[str, typer.Option("--ttl", metavar="DURATION", help="It can be used for so long: 30m, 1h.")] = "1h",
    uses: Annotated[int, typer.Option("--uses", min=1, max=1000, help="How often.")] = 1,
    form: Output = OutputFormat.TABLE,
) -> None:
    """Make a join token and print it. It is not kept anywhere: whoever loses it makes another."""
    if role not in ("host", "node"):
        raise typer.BadParameter(f"{role!r} is not one of host, node", param_hint="--role")
    if (host is not None and role != "host") or (node is not None and role != "node"):
        raise typer.BadParameter(f"does not go with --role {role}", param_hint="--host" if role == "node" else "--node")
    body: Json = {"role": role, "ttl_s": _seconds(ttl, "--ttl"), "uses": uses, "macs": mac or [], "cidrs": cidr or []}
    if (name := host or node) is not None:
        body["name"] = name
    made = options.client(ctx).request("POST", "/jointokens", body=body, repeatable=False).body
    if output.machine_readable(form):
        output.dump(made, form)
        return
    print(text(made.get("token")))
    typer.echo(f"for a {role}, {made.get('uses')} time(s), until {text(made.get('expires_at'))}", err=True)


@token_app.command("list")
def list_tokens(ctx: typer.Context, form: Output = OutputFormat.TABLE) -> None:
    """List the tokens that can still be used."""
    _show_tokens(options.client(ctx).get("/jointokens").body, form)


@token_app.command("revoke")
def revoke_token(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="ID", help="As `token list` shows it.")],
    form: Output = OutputFormat.TABLE,
) -> None:
    """Let nobody join by a token any more."""
    path = f"/jointokens/{options.segment(token, 'token id')}"
    _show_tokens(options.client(ctx).request("DELETE", path).body, form)


def _write_node(there: MemberDirectory, cluster_id: str, servers: NodeServers, secrets: Json) -> None:
    sealed = mapping(secrets, "authority_key")
    key = Sealed(key_id=str(sealed["key_id"]), wrapped=str(sealed["wrapped"]), box=str(sealed["box"]))
    there.secret(files.KEYS_FILE, text(secrets.get("key_ring")))
    authority = AuthorityFile.of(text(secrets.get("authority")), key)
    there.secret(files.AUTHORITY_FILE, authority.model_dump_json(indent=2))
    there.no_tokens()
    peers = Peers(mapping(secrets, "peers"), mapping(secrets, "gateways"), mapping(secrets, "apis"))
    lives = mapping(secrets, "lives")
    there.node_settings(cluster_id, servers, peers, (int(lives["host_s"]), int(lives["node_s"])))


def _show_tokens(found: Json, form: OutputFormat) -> None:
    if output.machine_readable(form):
        output.dump(found, form)
        return
    rows = [
        [
            text(each.get("id")),
            text(each.get("role")),
            text(each.get("name")) or "any",
            ", ".join([*(each.get("macs") or []), *(each.get("cidrs") or [])]) or "any",
            f"{each.get('used')}/{each.get('uses')}",
            text(each.get("expires_at")),
            text(each.get("created_by")),
        ]
        for each in objects(found, "items")
    ]
    headers = ["ID", "ROLE", "NAME", "FROM", "USED", "EXPIRES", "BY"]
    output.table(headers, rows, empty="No join tokens.")


def _servers(raft: str | None, gateway: str | None, http: str | None) -> NodeServers:
    if raft is None or gateway is None or http is None:
        raise typer.BadParameter("are required for a node", param_hint="--raft, --gateway and --http")
    for address, option in ((raft, "--raft"), (gateway, "--gateway"), (http, "--http")):
        _check_address(address, option)
    return NodeServers(raft=raft, gateway=gateway, http=http)


def _hosts_of(servers: NodeServers) -> list[str]:
    return list(dict.fromkeys(split_address(each)[0] for each in (servers.http, servers.gateway, servers.raft)))


def _check_name(name: str, option: str) -> str:
    if _NAME.fullmatch(name) is None:
        raise typer.BadParameter(f"{name!r} is not lower-case letters, digits and '-'", param_hint=option)
    return name


def _check_address(address: str, option: str) -> None:
    try:
        split_address(address)
    except ValueError as error:
        raise typer.BadParameter(f"{address!r} {error}", param_hint=option) from None


def _seconds(duration: str, option: str) -> int:
    match = _DURATION.fullmatch(duration)
    if match is None:
        raise typer.BadParameter(f"{duration!r} is not a duration such as 30m, 24h or 7d", param_hint=option)
    return int(match[1]) * _UNITS_S[match[2]]


def _driver(driver: str, images: Path | None, directory: Path) -> dict[str, str]:
    match driver:
        case "qemu":
            return {"kind": "qemu", "images_dir": str((images or directory / "images").resolve())}
        case "simulated":
            return {"kind": "simulated"}
        case _:
            raise typer.BadParameter(f"{driver!r} is not one of qemu, simulated", param_hint="--driver")


def _macs() -> list[str]:
    """Of this machine's interfaces."""
    found: list[str] = []
    for path in sorted(_HARDWARE_TYPES.glob("*/address")):
        try:
            address = path.read_text().strip().lower()
        except OSError:
            continue
        if re.fullmatch(r"([0-9a-f]{2}:){5}[0-9a-f]{2}", address) and address != "00:00:00:00:00:00":
            found.append(address)
    return found[:64]
