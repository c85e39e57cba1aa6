"""What went wrong with the API, in words a user can act on, on the line of HCL it is about."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from provider_shim.client import ApiError, CancelledError, UnreachableError
from provider_shim.framework.diagnostics import Diagnostic, ProviderError, error
from provider_shim.resources.translate import Translation


@contextmanager
def told_to_user(doing: str, translation: Translation | None = None) -> Generator[None]:
    """Turns the client's exceptions into ProviderError; `doing` reads like "create microVM demo/web"."""
    try:
        yield
    except ApiError as refusal:
        raise ProviderError(explain(refusal, doing, translation)) from refusal
    except UnreachableError as problem:
        raise error(
            f"Cannot {doing}: the control plane does not answer",
            f"{problem}. Nothing is known about what exists, so nothing was removed from state. "
            "Check the endpoints, then run again.",
        ) from problem
    except CancelledError as problem:
        raise error(f"Interrupted while trying to {doing}", "Run again to go on.") from problem


def explain(refusal: ApiError, doing: str, translation: Translation | None) -> list[Diagnostic]:
    """One diagnostic per field that the API complains about, or one for the whole."""
    extra = " ".join(part for part in (refusal.detail, refusal.hint) if part)
    if refusal.status == 401:
        extra = f"{extra} Check the provider's token (or FLINTLOCK_TOKEN).".strip()
    found: list[Diagnostic] = []
    for each in refusal.errors:
        path = translation.path(each.pointer) if translation else ()
        where = "" if path else f" (at {each.pointer})" if each.pointer else ""
        found.append(Diagnostic("error", f"Cannot {doing}", f"{each.message}{where} [{refusal.code}]", path))
    if not found:
        found.append(Diagnostic("error", f"Cannot {doing}", f"{refusal.title}. {extra} [{refusal.code}]"))
    return found
