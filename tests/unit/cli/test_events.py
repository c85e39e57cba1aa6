"""flintctl events against a served API."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partialmethod
from types import SimpleNamespace
from typing import Any

import pytest
from unit.api.rig import Rig

from controlplane.cli.commands import events
from controlplane.cli.context import Connection
from controlplane.machine import recent_events
from controlplane.model.resources import ObservedPower

Cli = Callable[..., Any]


@pytest.fixture
def fleet(api: Rig) -> Rig:
    api.with_host()
    api.active()
    api.report("web", power=ObservedPower.STOPPED, cause="the guest\x1b[2J shut down")
    return api


@pytest.mark.usefixtures("fleet")
def test_what_happened_is_a_table(cli: Cli) -> None:
    shown = cli("events", "--kind", "MicroVM", "-n", "demo", "--name", "web")
    assert shown.err == ""
    lines = shown.out.splitlines()
    assert lines[0].split() == ["AGE", "TYPE", "REASON", "OBJECT", "HOST", "MESSAGE"]
    assert [line.split()[2] for line in lines[1:]] == ["Declared", "Placed", "Running", "Ready", "Stopped", "Drifted"]
    assert lines[-1].split()[1:6] == ["warning", "Drifted", "MicroVM", "demo/web", "h1"]
    assert "\x1b" not in shown.out
    wide = cli("events", "--reason", "Placed", "-o", "wide").out.splitlines()
    assert wide[0].split()[-3:] == ["ACTOR", "AT", "ID"]
    answer = json.loads(cli("events", "--warnings", "--since", "1h", "-o", "json").out)
    assert [each["reason"] for each in answer["items"]] == ["Drifted"]


@pytest.mark.usefixtures("fleet")
def test_what_is_left_out_is_said(cli: Cli, api: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = cli("events", "--limit", "1")
    assert (len(cut.out.splitlines()), cut.err) == (2, "Earlier events match, too: --limit shows more.\n")
    monkeypatch.setattr(recent_events, "KEPT", 2)
    api.put("/namespaces/late", {"spec": {}})
    assert cli("events").err.startswith("What was before 20")
    assert cli("events", "--name", "none").err.endswith("is forgotten.\nNo event matches.\n")


@pytest.mark.usefixtures("fleet")
def test_following_prints_each_event_once_whoever_fails_meanwhile(
    cli: Cli, api: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    turns: list[Callable[[], object]] = [
        lambda: api.put("/namespaces/a", {"spec": {}}),
        lambda: setattr(api.replica, "leaderless", True),
        lambda: (setattr(api.replica, "leaderless", False), api.put("/namespaces/b", {"spec": {}})),
        lambda: None,
    ]

    def turn(_: float) -> None:
        if not turns:
            raise KeyboardInterrupt
        turns.pop(0)()

    monkeypatch.setattr(Connection, "client", partialmethod(Connection.client, retry_for_s=0.0))
    monkeypatch.setattr(events, "time", SimpleNamespace(sleep=turn))
    followed = cli("events", "--kind", "Namespace", "--watch", "-o", "json", "--limit", "1")
    assert followed.code == 130
    assert [json.loads(line)["name"] for line in followed.out.splitlines()] == ["demo", "a", "b"]
    assert "trying again." in followed.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--kind", "Pod"), "--kind"),
        (("--reason", "Exploded"), "--reason"),
        (("--since", "soon"), "'soon' is not a duration"),
        (("--host", "H1!"), "/query/host"),
    ],
)
def test_a_wrong_option_is_named(cli: Cli, arguments: tuple[str, str], said: str) -> None:
    answer = cli("events", *arguments)
    assert answer.code in (1, 2)
    assert said in answer.err
