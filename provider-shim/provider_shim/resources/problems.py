"""What went wrong with the API, in words a user can act on, on the line of HCL it is about."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from provider_shim.client import ApiError, CancelledError, UnreachableError
from provider_shim.framework.diagnostics import Diagnostic, Path, ProviderError, error, show_path


class Locator(Protocol):
    """Finds the attribute that a JSON pointer of a problem is about."""

    def path(self, pointer: str) -> Path: ...


@contextmanager
def told_to_user(doing: str, locator: Locator) -> Generator[None]:
    """Turns the client's exceptions into ProviderError; `doing` reads like "create microVM demo/web"."""
    try:
        yield
    except ApiError as refusal:
        raise ProviderError(explain(refusal, doing, locator)) from refusal
    except UnreachableError as problem:
        if problem.refusal is not None:
            raise error(
                f"Cannot {doing}: the control plane cannot decide now", _undecided(problem.refusal)
            ) from problem
        raise error(
            f"Cannot {doing}: the control plane does not answer",
            f"{problem}. Nothing is known about what exists, so nothing was removed from state. "
            "Check the endpoints, then run again.",
        ) from problem
    except CancelledError as problem:
        raise error(f"Interrupted while trying to {doing}", "Run again to go on.") from problem


def explain(refusal: ApiError, doing: str, locator: Locator) -> list[Diagnostic]:
    """One diagnostic per field that the API complains about, or one for the whole."""
    summary = f"Cannot {doing}"
    if refusal.status == 401:
        # The API's hint is for those who write HTTP.
        told = _sentences(_whole(refusal), "Check the provider's token (or FLINTLOCK_TOKEN)")
        return [Diagnostic("error", summary, f"{told} [{refusal.code}]")]
    found: list[Diagnostic] = []
    for each in refusal.errors:
        path = locator.path(each.pointer)
        # Terraform shows the line of the outermost attribute: what is wrong inside of it is named here.
        where = f"{show_path(path)}: " if len(path) > 1 else "" if path else f"{each.pointer}: "
        found.append(
            Diagnostic("error", summary, f"{where}{_sentences(each.message, refusal.hint)} [{refusal.code}]", path)
        )
    if not found:
        told = _sentences(_whole(refusal), refusal.hint)
        found.append(Diagnostic("error", summary, f"{told} [{refusal.code}]"))
    return found


def _undecided(refusal: ApiError) -> str:
    """Nodes answer, and none of them has a leader to ask."""
    told = _sentences(_whole(refusal), "The request was repeated at every endpoint until its time was over")
    return (
        f"{told} Nothing was removed from state. Look at `flintctl cluster status`: a majority of the nodes has to run"
        f" and reach each other. Then run again. [{refusal.code}]"
    )


def _sentences(*parts: str) -> str:
    return " ".join(f"{part.rstrip('.')}." for part in parts if part)


def _whole(refusal: ApiError) -> str:
    return ": ".join(part for part in (refusal.title, refusal.detail) if part)
