"""The fleet that scenarios harm, made whole before each of them; a new one after a scenario that failed.

They run inside the sandbox that `python -m tests.chaos` makes, and nowhere else.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from chaos.fleet import MOVERS, PATIENCE_S, PET, Fleet
from chaos.results import IMAGES, Options, Results
from chaos.scene import Scene
from pytest_bdd import given, parsers
from support.cluster import within

_failed = pytest.StashKey[bool]()


class Fleets:
    """One at a time."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._run = time.strftime("%Y%m%dT%H%M%S")
        self._made = 0
        self._fleet: Fleet | None = None

    def get(self) -> Fleet:
        if self._fleet is None:
            self._made += 1
            evidence = self._directory / f"{self._run}-{self._made}"
            self._fleet = Fleet(evidence, self._directory / IMAGES)
            try:
                self._fleet.start()
            except BaseException:
                self.discard(keep=True)
                raise
        return self._fleet

    def discard(self, *, keep: bool) -> None:
        """`keep` its evidence: the folder with logs, consoles and sightings."""
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None
            evidence = self._directory / f"{self._run}-{self._made}"
            if keep:
                print(f"\nevidence: {evidence}", flush=True)  # noqa: T201 - a person looks for it
            else:
                shutil.rmtree(evidence)


@pytest.fixture(scope="session")
def chaos(pytestconfig: pytest.Config) -> Options:
    for plugin in pytestconfig.pluginmanager.get_plugins():
        if isinstance(plugin, Results):
            return plugin.options
    pytest.skip("chaos scenarios need the sandbox of `make chaos`")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        item.stash[_failed] = True
    return report


@pytest.fixture(scope="session")
def fleets(chaos: Options) -> Iterator[Fleets]:
    made = Fleets(chaos.directory)
    yield made
    made.discard(keep=False)


@pytest.fixture
def scene(fleets: Fleets, request: pytest.FixtureRequest) -> Iterator[Scene]:
    try:
        yield Scene(fleets.get())
    finally:
        if request.node.stash.get(_failed, False):
            fleets.discard(keep=True)
        elif request.node.get_closest_marker("spoils") is not None:
            fleets.discard(keep=False)


# -- Given -------------------------------------------------------------------------------------------------------------


@given("3 nodes, 4 hosts, and 4 microVMs that restart elsewhere")
def _whole(scene: Scene) -> None:
    fleet = scene.fleet
    fleet.nodes.start()
    for host in fleet.hosts.values():
        host.start()
    fleet.await_ready_hosts(PATIENCE_S)
    for name, on_detach in MOVERS.items():
        fleet.declare(name, {"on_host_failure": "restart_elsewhere", "on_detach": on_detach})
    if PET in fleet.microvms():
        _delete_pet(fleet)
    fleet.await_agreement(PATIENCE_S)


@given(parsers.parse('"pet", which never moves, runs beside "{name}"'))
def _pet(scene: Scene, name: str) -> None:
    fleet = scene.fleet
    fleet.declare(PET, {"on_host_failure": "never"}, placement={"host": scene.host_of(name).name})
    fleet.await_agreement(PATIENCE_S)


def _delete_pet(fleet: Fleet) -> None:
    fleet.client.request("DELETE", f"/namespaces/chaos/microvms/{PET}")
    within(40, lambda: PET not in fleet.microvms(), "the pet is gone")
