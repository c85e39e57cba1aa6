"""Bearer tokens of OpenID Connect issuers: people who log in elsewhere, and pipelines that their CI system vouches for.

`settings` says whom a node trusts, `fetch` and `keys` get an issuer's public keys and keep them, `tokens` decides
whether a token is one of them and whom it stands for. Nothing that a token says leads anywhere: it only selects one of
the issuers of the settings, and one of that issuer's keys (docs/adr/0137).
"""

from controlplane.identity.oidc.settings import OidcIssuer as OidcIssuer
from controlplane.identity.oidc.tokens import OidcTokens as OidcTokens
