"""Join tokens, and the one thing that they are for.

Whoever joins has no credential but its token, so the two routes that it uses are open: one tells the authority's
certificate, which the joiner compares with the fingerprint in its token before it says anything, the other takes the
token. A node is given the key ring besides its certificate; so only who may change the members makes tokens for nodes.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Path
from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.http import credential_shapes, problems, reads, writes
from controlplane.api.http.access import Asking
from controlplane.api.http.answers import respond
from controlplane.api.http.routing import StrictRoute
from controlplane.api.http.services import Actor, Services, With, signer_of
from controlplane.api.http.times import iso
from controlplane.decide.access import Question
from controlplane.identity import join_tokens
from controlplane.identity.names import IdentityError
from controlplane.machine.outcome import Rejected
from controlplane.machine.state import State
from controlplane.model.access import AccessKind, Verb
from controlplane.model.commands import CreateJoinToken, RevokeCertificates, RevokeJoinToken
from controlplane.model.credentials import JoinToken, MemberKind
from controlplane.ports import LogError, Member, RefusedError
from controlplane.ports.issuance import Applicant, Issued, Issuer, NoAuthorityError
from controlplane.settings import split_address

ADD_TIMEOUT_S = 10.0

router = APIRouter(tags=["Joining"], route_class=StrictRoute)


async def _address_of(request: Request) -> str:
    return request.client.host if request.client is not None else ""


CallerAddress = Annotated[str, Depends(_address_of)]
TokenId = Annotated[str, Path(alias="id", pattern=r"^[0-9A-HJKMNP-TV-Z]{26}$")]


@router.get("/jointokens", response_model=credential_shapes.JoinTokenList)
async def list_tokens(state: reads.Snapshot) -> Response:
    """The join tokens that can still be used, without their secrets."""
    items = [_shape(each) for each in sorted(state.join_tokens.values(), key=lambda each: each.id)]
    return respond(credential_shapes.JoinTokenList(revision=state.revision, items=items), state)


@router.post("/jointokens", response_model=credential_shapes.JoinTokenCreated, status_code=201)
async def create_token(services: With, actor: Actor, asker: Asking, body: credential_shapes.JoinTokenBody) -> Response:
    """Make a join token. One for a node also needs the right to change the members of the log."""
    if body.role is MemberKind.NODE:
        await asker.require(Question(verb=Verb.ACT, kind=AccessKind.CLUSTER))
    await _fresh(services)
    made = join_tokens.new(services.ids.new(), _fingerprint(services))
    command = CreateJoinToken(
        id=made.id,
        sha256=made.sha256,
        role=body.role,
        ttl_s=body.ttl_s,
        uses=body.uses,
        name=body.name,
        macs=body.macs,
        cidrs=body.cidrs,
    )
    _, state = await writes.propose(services, actor, command, key=None)
    told = _shape(state.join_tokens[made.id]).model_dump()
    return respond(credential_shapes.JoinTokenCreated(**told, token=made.text), state, status=201)


@router.delete("/jointokens/{id}", response_model=credential_shapes.JoinTokenList)
async def revoke_token(services: With, actor: Actor, id_: TokenId) -> Response:
    """Nobody joins by it any more. Who did already is not touched."""
    _, state = await writes.propose(services, actor, RevokeJoinToken(id=id_), key=None)
    return await list_tokens(state)


@router.get("/join/authority", response_model=credential_shapes.AuthorityCertificate)
async def read_authority(services: With) -> Response:
    """The certificate of the authority, for who has a join token and compares it with the fingerprint there."""
    state = await _fresh(services)
    fingerprint = _fingerprint(services)
    document = credential_shapes.AuthorityCertificate(
        cluster_id=state.cluster_id,
        fingerprint=fingerprint,
        certificate=state.authorities[fingerprint].certificate,
        authorities=signer_of(services).authorities(),
    )
    return respond(document, state)


@router.post("/join", response_model=credential_shapes.Joined)
async def join(services: With, body: credential_shapes.JoinBody, address: CallerAddress) -> Response:
    """Redeem a join token for a certificate. A node is also added to the log, as a learner."""
    await _fresh(services)
    issuer = signer_of(services)
    applicant = Applicant(
        kind=MemberKind.HOST if body.node is None else MemberKind.NODE,
        name=body.name,
        csr=body.csr.encode(),
        addresses=_dialled(body.node),
    )
    if body.node is not None:
        await _check_node(services, body.name)
    try:
        issued = await issuer.join(body.token, applicant, macs=body.macs, address=address)
    except IdentityError as error:
        raise problems.invalid("/csr", str(error)) from None
    except NoAuthorityError as error:
        raise problems.problem("no_authority", str(error)) from None
    if isinstance(issued, Rejected):
        raise problems.from_rejected(issued)
    return respond(await _welcome(services, issuer, issued, body), services.reader.state)


async def _welcome(
    services: Services, issuer: Issuer, issued: Issued, body: credential_shapes.JoinBody
) -> credential_shapes.Joined:
    gateways = {node: at for node, at in services.settings.gateways().items() if at}
    return credential_shapes.Joined(
        cluster_id=services.reader.state.cluster_id,
        certificate=issued.certificate,
        authorities=issued.authorities,
        gateways=gateways,
        node=None
        if body.node is None
        else await _node_secrets(services, issuer, issued.serial, body.name, body.node, gateways),
    )


async def _node_secrets(
    services: Services,
    issuer: Issuer,
    serial: str,
    name: str,
    addresses: credential_shapes.NodeAddresses,
    gateways: dict[str, str],
) -> credential_shapes.NodeSecrets:
    before = (await services.log.status()).members
    message = ""
    try:
        member = Member(name, addresses.raft, "learner", addresses.api, addresses.gateway)
        await services.members.add_member(member, timeout_s=ADD_TIMEOUT_S)
    except RefusedError as error:
        # Such as an id that was removed: it is given nothing, and its certificate is worth nothing.
        revoked = RevokeCertificates(kind=MemberKind.NODE, name=name, serial=serial, reason=f"not admitted: {error}")
        await services.proposer.propose(revoked, actor="join", timeout_s=services.settings.write_timeout_s)
        raise
    except LogError as error:
        message = f"{error or type(error).__name__}: add it with `flintctl raft add {name} --address {addresses.raft}`"
    authority, key = issuer.sealed()
    return credential_shapes.NodeSecrets(
        key_ring=issuer.key_ring(),
        authority=authority,
        authority_key=credential_shapes.SealedKey(key_id=key.key_id, wrapped=key.wrapped, box=key.box),
        lives=credential_shapes.LivesShape(host_s=issuer.lives.host_s, node_s=issuer.lives.node_s),
        peers={each.node: each.address for each in before if each.node != name},
        gateways={node: at for node, at in gateways.items() if node != name},
        apis={node: at for node, at in services.settings.addresses().items() if at and node != name},
        learner=not message,
        message=message,
    )


async def _check_node(services: Services, name: str) -> None:
    """A member's place is not taken by whoever has a token: it is removed first, and its id never comes back."""
    if any(each.node == name for each in (await services.log.status()).members):
        raise RefusedError(
            f"{name} is a member already; issue it a certificate on its own machine (`flintctl node certify`), or"
            " remove it and join under a new id"
        )


def _dialled(node: credential_shapes.NodeAddresses | None) -> list[str]:
    """Where a node is dialled, without ports."""
    if node is None:
        return []
    return list(dict.fromkeys(split_address(each)[0] for each in (node.api, node.gateway, node.raft)))


async def _fresh(services: Services) -> State:
    return await services.reader.fresh(timeout_s=services.settings.read_timeout_s)


def _fingerprint(services: Services) -> str:
    try:
        return signer_of(services).fingerprint()
    except NoAuthorityError as error:
        raise problems.problem("no_authority", str(error)) from None


def _shape(token: JoinToken) -> credential_shapes.JoinTokenShape:
    return credential_shapes.JoinTokenShape(
        id=token.id,
        role=token.role,
        name=token.name,
        macs=token.macs,
        cidrs=token.cidrs,
        uses=token.uses,
        used=token.used,
        created_by=token.actor,
        created_at=iso(token.at),
        expires_at=iso(token.expires_at),
    )
