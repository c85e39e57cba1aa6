"""Tokens of an issuer: who they stand for, and every way in that must stay shut."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pydantic import ValidationError
from support.issuer import AUDIENCE, Issuer, bendable_issuer, id_token, jwk, oidc_server, rsa_key

from controlplane.identity.oidc import OidcIssuer, OidcTokens, fetch
from controlplane.identity.oidc.fetch import FetchError
from controlplane.identity.oidc.keys import AGAIN_S, FRESH_S, KEPT_S, MAX_KEYS
from controlplane.identity.principal import Principal, UnauthenticatedError

KEY, OTHER = rsa_key(), rsa_key()


class Watch:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with bendable_issuer() as issuer:
        issuer.keys["one"] = KEY
        yield issuer


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def tokens(issuer: Issuer, watch: Watch) -> OidcTokens:
    return trusting(issuer, watch)


def trusting(issuer: Issuer, watch: Watch | None = None, **settings: Any) -> OidcTokens:
    trusted = OidcIssuer.model_validate({"issuer": issuer.url, "audiences": [AUDIENCE], **settings})
    return OidcTokens([trusted], now=watch or Watch())


async def refused(tokens: OidcTokens, token: str) -> str:
    with pytest.raises(UnauthenticatedError) as refusal:
        await tokens.authenticate(token)
    assert token not in str(refusal.value)
    return str(refusal.value)


async def test_a_token_stands_for_its_subject_and_groups_under_the_prefix(issuer: Issuer, tokens: OidcTokens) -> None:
    end = int(time.time()) + 120
    found = await tokens.authenticate(issuer.token(exp=end, groups=["web", "two words", "a=b", 7, ""]))
    assert found == Principal(
        name="oidc:alice", user="oidc:alice", groups=frozenset({"oidc:web"}), expires_at=(end + 30) * 1000
    )


async def test_claims_of_a_pipeline_are_groups(issuer: Issuer) -> None:
    ci = trusting(
        issuer, prefix="gh:", group_claims=["repository", "ref"], required_claims={"repository_owner": "octo"}
    )
    said = {"sub": "repo:octo/web:ref:refs/heads/main", "repository": "octo/web", "ref": "refs/heads/main"}
    found = await ci.authenticate(issuer.token(**said, repository_owner="octo"))
    assert found.user == "gh:repo:octo/web:ref:refs/heads/main"
    assert found.groups == {"gh:repository=octo/web", "gh:ref=refs/heads/main"}
    assert "repository_owner" in await refused(ci, issuer.token(**said, repository_owner="other"))
    assert "repository_owner" in await refused(ci, issuer.token(**said))


async def test_an_email_names_a_user_once_the_issuer_has_verified_it(issuer: Issuer) -> None:
    mail = trusting(issuer, username_claim="email")
    found = await mail.authenticate(issuer.token(email="alice@example.com", email_verified=True))
    assert found.user == "oidc:alice@example.com"
    for verified in (False, None, "true"):
        token = issuer.token(email="alice@example.com", email_verified=verified)
        assert "not verified" in await refused(mail, token)


def encoded(part: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(issuer: Issuer, algorithm: str) -> str:
    return f"{encoded({'alg': algorithm, 'kid': 'one', 'typ': 'JWT'})}.{encoded(issuer.claims())}."


def confused(issuer: Issuer) -> str:
    """HMAC with the public key as the secret, which a library that goes by the header would accept."""
    public = KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    said = f"{encoded({'alg': 'HS256', 'kid': 'one', 'typ': 'JWT'})}.{encoded(issuer.claims())}"
    mac = hmac.new(public, said.encode(), hashlib.sha256).digest()
    return f"{said}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def meddled(issuer: Issuer) -> str:
    header, _, signature = issuer.token().split(".")
    return f"{header}.{encoded(issuer.claims(sub='root'))}.{signature}"


def of_another_key(issuer: Issuer, **headers: Any) -> str:
    return jwt.encode(issuer.claims(), OTHER, algorithm="RS256", headers={"kid": "one", **headers})


ATTACKS: dict[str, tuple[Callable[[Issuer], str], str]] = {
    "alg none": (lambda issuer: unsigned(issuer, "none"), "signed in a way"),
    "alg None": (lambda issuer: unsigned(issuer, "None"), "signed in a way"),
    "no signature": (lambda issuer: unsigned(issuer, "RS256"), "signature is not"),
    "HS and RS confused": (confused, "signed in a way"),
    "claims meddled with": (meddled, "signature is not"),
    "another's key": (of_another_key, "signature is not"),
    "its own key in the header": (lambda i: of_another_key(i, jwk=jwk("one", OTHER)), "signature is not"),
    "a key by URL": (lambda i: of_another_key(i, jku=f"{i.url}/mine", x5u=f"{i.url}/mine"), "signature is not"),
    "kid as a path": (lambda i: of_another_key(i, kid="../../../../dev/null"), "no key"),
    "kid as SQL": (lambda i: of_another_key(i, kid="' OR 1=1 --"), "no key"),
    "kid of a megabyte": (lambda i: of_another_key(i, kid="k" * 1_000_000), "is over"),
    "kid of a kilobyte": (lambda i: of_another_key(i, kid="k" * 1_000), "in no way"),
    "RS key for PS": (lambda i: i.token(algorithm="PS256"), "signed in a way"),
    "RS key for ES": (
        lambda i: jwt.encode(
            i.claims(), ec.generate_private_key(ec.SECP256R1()), algorithm="ES256", headers={"kid": "one"}
        ),
        "no key",
    ),
    "critical extension": (lambda i: i.token(headers={"crit": ["exp"]}), "not known"),
    "another type": (lambda i: i.token(headers={"typ": "logout+jwt"}), "type"),
    "expired": (lambda i: i.token(exp=int(time.time()) - 60), "expired"),
    "not yet valid": (lambda i: i.token(nbf=int(time.time()) + 60), "not valid yet"),
    "issued tomorrow": (lambda i: i.token(iat=int(time.time()) + 86_400), "not valid yet"),
    "no end": (lambda i: i.token(exp=None), "no claim exp"),
    "no audience": (lambda i: i.token(aud=None), "claim aud"),
    "another audience": (lambda i: i.token(aud="grafana"), "audience"),
    "another issuer": (lambda i: i.token(iss="https://evil.example"), "none that is trusted"),
    "its issuer with a slash": (lambda i: i.token(iss=i.url + "/"), "none that is trusted"),
    "no issuer": (lambda i: i.token(iss=None), "none that is trusted"),
    "no subject": (lambda i: i.token(sub=None), "names no user"),
    "a subject of control characters": (lambda i: i.token(sub="al\nice"), "names no user"),
    "a giant": (lambda i: i.token(groups=["g" * 20_000]), "is over"),
    "too many groups": (lambda i: i.token(groups=[f"g{n}" for n in range(300)]), "over 256 groups"),
    "no JSON": (lambda _: "bm8.bm8.bm8", "not known"),
    "nested deeply": (
        lambda _: f"{encoded({'alg': 'RS256'})}.{base64.urlsafe_b64encode(b'[' * 9_000).decode().rstrip('=')}.x",
        "not known",
    ),
}


@pytest.mark.parametrize(("forge", "reason"), ATTACKS.values(), ids=ATTACKS.keys())
async def test_what_is_no_token_of_the_issuer_for_us_now_is_refused(
    issuer: Issuer, tokens: OidcTokens, forge: Callable[[Issuer], str], reason: str
) -> None:
    assert reason in await refused(tokens, forge(issuer))
    assert set(issuer.asked) <= {"/.well-known/openid-configuration", "/keys"}, "no URL of a token is followed"


async def test_the_issuer_is_not_asked_about_what_names_another(issuer: Issuer, tokens: OidcTokens) -> None:
    await refused(tokens, issuer.token(iss="http://169.254.169.254/latest"))
    await refused(tokens, unsigned(issuer, "none"))
    assert issuer.asked == []


@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", ec.generate_private_key(ec.SECP256R1())),
        ("ES384", ec.generate_private_key(ec.SECP384R1())),
        ("EdDSA", ed25519.Ed25519PrivateKey.generate()),
        ("PS256", KEY),
    ],
)
async def test_other_algorithms_are_taken_where_they_are_listed(issuer: Issuer, algorithm: str, key: Any) -> None:
    issuer.keys = {"one": key}
    listed = trusting(issuer, algorithms=[algorithm])
    assert (await listed.authenticate(issuer.token(algorithm=algorithm))).user == "oidc:alice"
    assert "signed in a way" in await refused(trusting(issuer, algorithms=["RS512"]), issuer.token(algorithm=algorithm))


# -- keys --------------------------------------------------------------------------------------------------------------


async def test_a_new_key_counts_at_once_and_made_up_ones_cost_one_fetch(
    issuer: Issuer, tokens: OidcTokens, watch: Watch
) -> None:
    for _ in range(5):
        await tokens.authenticate(issuer.token())
    assert issuer.fetches == 1
    watch.at += AGAIN_S
    issuer.keys["two"] = OTHER
    assert (await tokens.authenticate(issuer.token("two"))).user == "oidc:alice"
    assert issuer.fetches == 2
    for number in range(50):
        await refused(tokens, of_another_key(issuer, kid=f"made-up-{number}"))
    assert issuer.fetches == 2
    watch.at += AGAIN_S
    await refused(tokens, of_another_key(issuer, kid="made-up"))
    assert issuer.fetches == 3


async def test_a_withdrawn_key_ends_and_an_issuer_that_is_down_does_not_lock_everybody_out(
    issuer: Issuer, tokens: OidcTokens, watch: Watch
) -> None:
    old = issuer.token()
    await tokens.authenticate(old)
    issuer.down = True
    watch.at += FRESH_S + 1
    await tokens.authenticate(old)
    watch.at += KEPT_S
    assert "no key" in await refused(tokens, old)
    issuer.down, issuer.keys = False, {"two": OTHER}
    watch.at += AGAIN_S
    assert "no key" in await refused(tokens, old)
    await tokens.authenticate(issuer.token("two"))


async def test_without_a_key_id_there_has_to_be_one_key(issuer: Issuer) -> None:
    issuer.keys = {None: KEY}
    await trusting(issuer).authenticate(issuer.token(None))
    issuer.keys = {None: KEY, "two": OTHER}
    assert "no key" in await refused(trusting(issuer), issuer.token(None))


@pytest.mark.parametrize(
    ("key_set", "discovery"),
    [
        ({"keys": [jwk(f"k{n}", KEY) for n in range(MAX_KEYS + 1)]}, {}),
        ({"keys": [{"kty": "oct", "kid": "one", "k": "c2VjcmV0"}]}, {}),
        ({"keys": [jwk("one", KEY) | {"use": "enc"}]}, {}),
        ({"keys": [jwk("one", rsa_key(1024))]}, {}),
        ({"keys": [{"kty": "RSA", "kid": "one", "n": "!", "e": "AQAB"}, 7, None, "x"]}, {}),
        ({"keys": "one"}, {}),
        ([], {}),
        (b"[" * 100_000, {}),
        (b'{"keys": [], "pad": "' + b"x" * 300_000 + b'"}', {}),
        ("http://127.0.0.1:1/elsewhere", {}),
        (None, {"issuer": "https://another.example"}),
        (None, {"jwks_uri": "http://169.254.169.254/keys"}),
        (None, {"jwks_uri": "file:///etc/passwd"}),
        (None, {"jwks_uri": None}),
    ],
    ids=[
        "too many keys",
        "a shared secret",
        "a key to encrypt with",
        "a weak key",
        "keys that are none",
        "no list",
        "no object",
        "nested deeply",
        "a bomb",
        "a redirect",
        "another issuer",
        "keys over http",
        "keys from a file",
        "no keys",
    ],
)
async def test_an_issuer_that_publishes_nonsense_is_trusted_with_nothing(
    issuer: Issuer, key_set: Any, discovery: dict[str, Any]
) -> None:
    token = issuer.token()
    issuer.key_set, issuer.discovery = key_set, discovery
    assert "no key" in await refused(trusting(issuer), token)


async def test_an_answer_that_trickles_in_is_given_up(issuer: Issuer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.3)
    issuer.drip_s = 0.02
    began = time.monotonic()
    with pytest.raises(FetchError, match=r"takes longer than 0\.3 s"):
        fetch.fetch(f"{issuer.url}/keys", None)
    assert time.monotonic() - began < 2


async def test_a_slow_issuer_holds_nobody_up_whose_key_is_known(
    issuer: Issuer, tokens: OidcTokens, watch: Watch
) -> None:
    token = issuer.token()
    await tokens.authenticate(token)
    issuer.keys["two"] = OTHER
    watch.at += FRESH_S + 1
    issuer.drip_s = 0.002
    began = time.monotonic()
    await tokens.authenticate(token)
    assert issuer.asked.count("/keys") == 1, "it has not answered yet"
    # The new key is there once it has, and nobody has to ask for it again.
    await tokens.authenticate(issuer.token("two"))
    assert issuer.fetches == 2
    assert time.monotonic() - began > 0.5


@pytest.mark.parametrize(
    "settings",
    [
        {"issuer": "http://issuer.example"},
        {"issuer": "https://user:secret@issuer.example"},
        {"issuer": "https://issuer.example/?a=b"},
        {"issuer": "ftp://issuer.example"},
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"audiences": []},
        {"audiences": [""]},
        {"prefix": ""},
        {"leeway_s": 301},
        {"jwks_uri": "https://issuer.example/keys"},
    ],
)
def test_settings_that_would_trust_too_much_are_refused(settings: dict[str, Any]) -> None:
    good = {"issuer": "https://issuer.example", "audiences": ["flintlock"]}
    OidcIssuer.model_validate(good)
    with pytest.raises(ValidationError):
        OidcIssuer.model_validate({**good, **settings})


async def test_a_real_provider() -> None:
    with oidc_server({"alice": {"groups": ["web"]}}) as url:
        trusted = OidcIssuer.model_validate({"issuer": url, "audiences": [AUDIENCE]})
        found = await OidcTokens([trusted]).authenticate(id_token(url, "alice"))
        assert (found.user, found.groups) == ("oidc:alice", {"oidc:web"})
        assert "audience" in await refused(OidcTokens([trusted]), id_token(url, "alice", audience="another"))
