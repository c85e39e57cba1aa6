"""Between gRPC and the servicer: no call ends in a traceback.

What the provider raised on purpose (`ProviderError`) becomes its diagnostics. Anything else becomes one diagnostic
with a correlation id; the traceback goes to standard error under the same id, where TF_LOG shows it.
"""

from __future__ import annotations

import secrets
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from provider_shim import __version__
from provider_shim.framework.codec import CodecError
from provider_shim.framework.diagnostics import Diagnostic, ProviderError
from provider_shim.log import log
from provider_shim.protocol.convert import write_diagnostics
from provider_shim.protocol.messages import Method
from provider_shim.protocol.servicer import Handler


def guarded(method: Method, handler: Handler) -> Callable[[Any, Any], Any]:
    """A gRPC behaviour for the method: one response, or an iterator of them."""

    def unary(request: Any, _context: object) -> Any:
        response = method.response()
        try:
            handler(request, response)
        except Exception as problem:
            _report(response, _explain(method.name, problem))
        return response

    def stream(request: Any, _context: object) -> Iterator[Any]:
        try:
            yield from handler(request, method.response()) or ()
        except Exception as problem:
            response = method.response()
            _report(response, _explain(method.name, problem))
            yield response

    return stream if method.streams else unary


def _explain(call: str, problem: Exception) -> tuple[Diagnostic, ...]:
    if isinstance(problem, ProviderError):
        return problem.diagnostics
    correlation = secrets.token_hex(4)
    log("error", f"{call} failed: {''.join(traceback.format_exception(problem))}", correlation=correlation)
    what = "a value that does not fit its type" if isinstance(problem, CodecError) else "an error of its own"
    detail = (
        f"{call} met {what} ({type(problem).__name__}). Nothing that exists was forgotten. Run again with "
        f"TF_LOG=ERROR and look for correlation={correlation}; please report the lines found there. "
        f"Provider version {__version__}."
    )
    return (Diagnostic("error", f"The Flintlock provider failed [{correlation}]", detail),)


def _report(response: Any, items: tuple[Diagnostic, ...]) -> None:
    """Put diagnostics where this response has room for them."""
    fields = response.DESCRIPTOR.fields_by_name
    if "diagnostics" in fields:
        response.diagnostics.extend(write_diagnostics(items))
    elif "diagnostic" in fields:
        response.diagnostic.extend(write_diagnostics(items))
    elif "completed" in fields:
        response.completed.diagnostics.extend(write_diagnostics(items))
    elif "error" in fields:
        response.error.text = items[0].summary
    elif "Error" in fields:
        response.Error = items[0].summary
