"""One scenario: what it found, what it did and when, and the judgement of its part of the record."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field

from chaos import judge
from chaos.fleet import FRESH_S, MOVERS, PET, Fleet
from chaos.history import Copy
from chaos.hosts import Host
from support.cluster import POLL_S


@dataclass
class Scene:
    fleet: Fleet
    began_s: float = field(default_factory=time.monotonic)
    fault_s: float = 0.0
    before: dict[str, Copy] = field(default_factory=dict[str, Copy])
    """Name to the copy that was heard when the fault began."""
    struck: list[Host] = field(default_factory=list[Host])
    uids: dict[str, str] = field(default_factory=dict[str, str])
    gone: frozenset[int] = frozenset()
    """Processes that were killed or frozen for good."""

    def host_of(self, name: str) -> Host:
        return self.fleet.hosts[self.fleet.microvms()[name]["status"]["host"]]

    def strike(self, *hosts: Host) -> None:
        """Remember who runs, and where the fault hits: call it right before the fault."""
        self.uids = {name: each["uid"] for name, each in self.fleet.microvms().items()}
        living = self.fleet.living()
        self.before = {name: living[uid] for name, uid in self.uids.items() if uid in living}
        self.struck = list(hosts)
        self.fault_s = time.monotonic()

    @property
    def displaced(self) -> list[str]:
        """What may move and was on the hosts that were hit."""
        there = {host.name for host in self.struck}
        return [name for name, copy in self.before.items() if name in MOVERS and copy.host in there]

    def await_others(self, names: Iterable[str], seconds: float) -> None:
        """Each of `names` makes progress under another nonce within `seconds` of the fault."""
        by_s = self.fault_s + seconds
        expected = [
            judge.Return(self.uids[name], self.fault_s, by_s, frozenset({self.before[name].nonce})) for name in names
        ]
        assert expected, "the fault hit nothing that may move"
        while (late := self._late(expected)) and time.monotonic() < by_s:
            time.sleep(POLL_S)
        assert not late, "\n".join(late)

    def _late(self, expected: Iterable[judge.Return]) -> list[str]:
        return judge.not_back(self.fleet.recorder.sightings(self.fault_s), expected)

    def assert_goes_on(self, names: Iterable[str]) -> None:
        """Each of `names` is still the copy that it was before the fault."""
        living = self.fleet.living()
        now = {name: living[self.uids[name]].nonce if self.uids[name] in living else "silent" for name in names}
        assert now == {name: self.before[name].nonce for name in now}

    def assert_ended(self, seconds: float) -> None:
        """Nothing that may move made progress later than `seconds` after the fault."""
        ended_s = self.fault_s + seconds
        time.sleep(max(ended_s + FRESH_S - time.monotonic(), 0.0))
        movers = {self.uids[name] for name in MOVERS}
        late = {each.uid for each in self.fleet.recorder.sightings(ended_s) if each.uid in movers}
        assert not late, f"{late} made progress over {seconds:g} s after the fault"

    def await_end(self, seconds: float) -> None:
        """What runs, and where, is what the API says."""
        expected = {*MOVERS} | ({PET} & self.uids.keys())

        def wrong() -> list[str]:
            running = self.fleet.running()
            missing = expected - self.fleet.microvms().keys()
            seen = self.fleet.recorder.sightings(time.monotonic() - FRESH_S)
            stopped = [] if len(running) >= len(expected) else [f"the API calls only {sorted(running)} running"]
            return [*judge.wrong_end(seen, 0.0, running), *(f"{name} is gone" for name in missing), *stopped]

        give_up = time.monotonic() + seconds
        while problems := wrong():
            assert time.monotonic() < give_up, f"not within {seconds:g} s:\n" + "\n".join(problems)
            time.sleep(POLL_S)

    def second_copies(self) -> list[str]:
        return judge.second_copies(self.fleet.recorder.sightings(self.began_s))
