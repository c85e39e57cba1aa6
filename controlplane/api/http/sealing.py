"""Secrets of a declaration: what the user gives beside the spec, sealed before anything is proposed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from pydantic import SecretStr

from controlplane.api.http import problems
from controlplane.api.http.services import Services
from controlplane.model.commands import DeclareMicroVM
from controlplane.model.types import replace
from controlplane.ports.secrets import VaultError


async def sealed(
    services: Services, command: DeclareMicroVM, values: Mapping[str, SecretStr], *, dry_run: bool, at: str = ""
) -> DeclareMicroVM:
    """`command` with `values` in it as only nodes can read them; for a dry run, that only a rehearsal takes. `at`: the
    pointer of the declaration. Raises ApiError, LogError.
    """
    if not values:
        return command
    pointer = f"{at}/sensitive_metadata"
    if services.vault is None:
        message = "this node has no key ring to seal it with (settings: keys_file)"
        raise problems.problem("secrets_unavailable", message, problems.FieldError(pointer=pointer, message=message))
    plain = {name: value.get_secret_value() for name, value in values.items()}
    try:
        if dry_run:
            sealings = services.vault.rehearse(command.namespace, command.name, plain)
        else:
            sealings = await services.vault.seal(command.namespace, command.name, plain)
    except VaultError as error:
        raise problems.problem("secrets_unavailable", str(error)) from None
    digests = {name: each.digest for name, each in sealings.items()}
    spec = dataclasses.replace(command.spec, sensitive_metadata=command.spec.sensitive_metadata | digests)
    return replace(command, spec=spec, sealed={name: each.sealed for name, each in sealings.items()})
