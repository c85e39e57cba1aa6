"""What handlers raise instead of answering, as the problem that the client gets."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from controlplane.api.http import partition, problems
from controlplane.api.http.problems import ApiError, problem
from controlplane.ports import (
    CompactedError,
    EntryTooLargeError,
    LogError,
    NoLeaderError,
    OutcomeUnknownError,
    RefusedError,
    StateReader,
    UpgradePendingError,
)

REFUSALS = (ApiError, LogError, CompactedError)


def refusal_of(error: ApiError | LogError | CompactedError, reader: StateReader) -> ApiError:
    """`reader` knows what this node can say of its own position."""
    match error:
        case ApiError():
            return error
        case LogError():
            return _of_log(error, reader)
        case CompactedError():
            return problem("compacted", str(error) or "the revision is no longer remembered")


async def handle_refusal(reader: StateReader, _request: Request, error: Exception) -> Response:
    assert isinstance(error, REFUSALS)
    return problems.answer(refusal_of(error, reader))


def _of_log(error: LogError, reader: StateReader) -> ApiError:
    contact = reader.contact
    match error:
        case NoLeaderError() if contact.leader is None:
            return partition.refusal(contact, retry_after_s=error.retry_after_s)
        case NoLeaderError():
            return problem("no_leader", str(error) or "no leader is known", retry_after_s=error.retry_after_s)
        case RefusedError():
            return problem("membership_refused", str(error) or "the request is not allowed now")
        case UpgradePendingError():
            return problem("upgrade_pending", str(error), retry_after_s=error.retry_after_s)
        case EntryTooLargeError():
            return problem("too_large", str(error) or "the write is over the log's limit for one entry")
        case OutcomeUnknownError() | _:
            detail = str(error) or "the deadline passed before the cluster confirmed the write"
            if contact.leader is None:
                detail += f"; {partition.words(contact)}"
            return problem("outcome_unknown", detail, retry_after_s=error.retry_after_s)
