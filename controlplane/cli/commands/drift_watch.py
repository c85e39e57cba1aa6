"""flintctl drift watch: tells a pipeline when drift appears, instead of letting it look on a schedule.

The cluster's stream of changes only wakes; a moment later everything is read, and what is new is told (`following`). A
stream that breaks, or a change that no stream tells of, costs no more than the time until the next regular look. What
does not arrive is tried again after a growing pause, with what is so by then.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from controlplane.cli import options
from controlplane.cli.client import Client
from controlplane.cli.drift import report
from controlplane.cli.drift.classes import FAIL_ON_DEFAULT, FROM_PLAN, Class, FailOn
from controlplane.cli.drift.delivery import Delivery, DeliveryError, Program, Webhook, read_secret
from controlplane.cli.drift.following import Follower
from controlplane.cli.drift.report import Report
from controlplane.cli.errors import CliError, ProblemError
from controlplane.cli.options import NamespaceOption

RETRY_S = (1.0, 60.0)
"""The first pause and the longest one."""
_RECONNECT_S = 1.0


def watch(
    ctx: typer.Context,
    namespace: NamespaceOption = None,
    fail_on: Annotated[
        list[FailOn] | None, typer.Option("--fail-on", help="What counts as drift; may be repeated. Else: drifted.")
    ] = None,
    program: Annotated[
        str | None, typer.Option("--exec", metavar="COMMAND", help="Run this, with the notice on its standard input.")
    ] = None,
    webhook: Annotated[
        str | None, typer.Option("--webhook", metavar="URL", help="Send the notice there, signed.")
    ] = None,
    secret_file: Annotated[
        Path | None, typer.Option("--secret-file", metavar="FILE", help="Holds the webhook's secret.")
    ] = None,
    debounce: Annotated[
        float, typer.Option("--debounce", metavar="SECONDS", min=0.0, max=300.0, help="How long to let changes settle.")
    ] = 2.0,
    every: Annotated[
        float, typer.Option("--every", metavar="SECONDS", min=1.0, max=3600.0, help="Look at least this often.")
    ] = 60.0,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1.0, help="How long --exec may run.")
    ] = 3600.0,
    limit: Annotated[int | None, typer.Option(min=1, help="Stop after this many notices.")] = None,
) -> None:
    """Tell a webhook or a program when drift appears, changes and ends, until Ctrl-C.

    \b
    Examples:
      flintctl drift watch -n web --webhook https://ci.example/hooks/drift --secret-file /etc/flintlock/hook.secret
      flintctl drift watch --exec 'gh workflow run drift.yml'
    """
    counting = frozenset(map(Class, fail_on or ())) or FAIL_ON_DEFAULT - FROM_PLAN
    if needing := sorted(counting & FROM_PLAN):
        raise CliError(f"{needing[0]} is known from a plan only, and there is none here")
    delivery = _delivery(program, webhook, secret_file, timeout)
    params = {"namespace": namespace} if namespace else {}
    client = options.client(ctx)

    def look() -> Report:
        answer = client.get("/drift", {**params, "class": sorted(counting)}).body
        return Report(int(answer.get("revision") or 0), tuple(report.from_api(answer)), counting)

    waker = Waker(options.client(ctx), params)
    waker.start()
    try:
        follow(look, waker, delivery, debounce_s=debounce, every_s=every, limit=limit)
    finally:
        waker.stop()


def follow(
    look: Callable[[], Report],
    waker: Waker,
    delivery: Delivery,
    *,
    debounce_s: float,
    every_s: float,
    limit: int | None,
) -> None:
    """Ends after `limit` notices, else only by an error that trying again does not mend."""
    follower, told, pause_s, began = Follower(), 0, RETRY_S[0], False
    while True:
        try:
            waker.looking()
            found = _looked(look, again=began)
            began = True
            waker.looked(found.revision)
            if (notice := follower.look(found)) is not None:
                delivery.send(notice.document())
                follower.told(notice)
                typer.echo(f"{notice.what}: {len(found.failing)} findings at revision {found.revision}", err=True)
                told += 1
                if told == limit:
                    return
        except (DeliveryError, _LaterError) as trouble:
            typer.echo(f"{trouble}; trying again", err=True)
            time.sleep(pause_s * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            pause_s = min(pause_s * 2, RETRY_S[1])
        else:
            pause_s = RETRY_S[0]
            waker.wait(every_s)
            time.sleep(debounce_s)


class _LaterError(Exception):
    """The cluster cannot be asked now, and probably can be later."""


def _looked(look: Callable[[], Report], *, again: bool) -> Report:
    """Raises _LaterError; but CliError where it never went well, and where the cluster refuses."""
    try:
        return look()
    except CliError as error:
        refused = isinstance(error, ProblemError) and error.status < 500
        if refused or not again:
            raise
        raise _LaterError(str(error)) from None


class Waker(threading.Thread):
    """Follows the stream of changes, and goes on at another node when it breaks."""

    def __init__(self, client: Client, params: dict[str, str]) -> None:
        super().__init__(daemon=True)
        self._client = client
        self._params = params
        self._after: int | None = None
        self._changed = threading.Event()
        self._stopping = threading.Event()

    def stop(self) -> None:
        """It ends at the next heartbeat; nobody has to wait for that."""
        self._stopping.set()

    def looking(self) -> None:
        """Whatever changes from now on is worth another look."""
        self._changed.clear()

    def looked(self, revision: int) -> None:
        """Everything up to `revision` was looked at: the stream goes on from there when it breaks."""
        self._after = revision

    def wait(self, seconds: float) -> None:
        """Until something changed, or `seconds` are over."""
        self._changed.wait(seconds)

    def run(self) -> None:
        while not self._stopping.is_set():
            params = self._params if self._after is None else {**self._params, "from": self._after}
            try:
                for _ in self._client.events("/watch", params, wanted=lambda: not self._stopping.is_set()):
                    self._changed.set()
            except ProblemError as problem:
                if problem.code == "compacted":
                    self._after = None
            except CliError:
                pass  # a look says so, if it is more than a moment
            self._changed.set()
            self._stopping.wait(_RECONNECT_S)


def _delivery(program: str | None, webhook: str | None, secret_file: Path | None, timeout_s: float) -> Delivery:
    if (program is None) == (webhook is None):
        raise CliError("give one of --webhook and --exec")
    if program is not None:
        if secret_file is not None:
            raise CliError("--secret-file is for --webhook")
        return Program(program, timeout_s)
    if secret_file is None:
        raise CliError("--webhook needs --secret-file: the receiver has to know who sends")
    assert webhook is not None
    return Webhook(webhook, read_secret(secret_file))
