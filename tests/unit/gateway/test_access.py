"""Every gRPC method of the agents' descriptors, called by every kind of member."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import pytest

from controlplane.api.gateway.access import METHODS, Doorkeeper
from controlplane.identity.authority import Authority
from controlplane.machine.state import State
from controlplane.ports import StateReader
from controlplane.system import SystemClock
from controlplane.wire.flintlock.controlplane.agent.v1 import agent_pb2

DESCRIBED = {
    f"{service.name}/{method.name}"
    for service in agent_pb2.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
OWN = {"AgentGateway/Session", "AgentGateway/Renew"}
MAY = {"host": OWN, "node": DESCRIBED - OWN}


class Known:
    """What a doorkeeper knows."""

    state = State(cluster_id="test")


DOORKEEPER = Doorkeeper("test", cast("StateReader", Known()), SystemClock())


class Caller:
    def __init__(self, *certificates: bytes) -> None:
        self._certificates = certificates

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        return {"x509_pem_cert": self._certificates} if self._certificates else {}


@pytest.fixture(scope="module")
def callers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Caller]:
    root = tmp_path_factory.mktemp("ca")
    authority = Authority.create(root / "ca", cluster_id="test")
    files = {
        "host": authority.issue_host("h1", root / "host"),
        "node": authority.issue_node("n1", root / "node"),
        "proxy": authority.issue_server("proxy", root / "proxy"),
    }
    return {kind: Caller(each.certificate.read_bytes()) for kind, each in files.items()} | {"nobody": Caller()}


def test_every_method_has_a_rule() -> None:
    assert set(METHODS) == DESCRIBED


@pytest.mark.parametrize("kind", ["host", "node", "proxy", "nobody"])
@pytest.mark.parametrize("method", sorted(DESCRIBED))
def test_each_member_calls_what_is_its_own(callers: dict[str, Caller], kind: str, method: str) -> None:
    reason = DOORKEEPER.refused(callers[kind], method, "h1" if method in OWN else None)
    assert (reason is None) is (method in MAY.get(kind, set()))


def test_a_member_that_has_no_session_is_refused_before_it_names_a_host(callers: dict[str, Caller]) -> None:
    assert DOORKEEPER.refused(callers["host"], "AgentGateway/Session") is None
    assert DOORKEEPER.refused(callers["node"], "AgentGateway/Session") is not None


def test_a_host_has_its_own_session_and_no_other(callers: dict[str, Caller]) -> None:
    reason = DOORKEEPER.refused(callers["host"], "AgentGateway/Session", "h2")
    assert reason is not None
    assert reason.startswith("the certificate belongs to host h1 of cluster test, which may not act Session h2")


def test_a_member_of_another_cluster_is_refused_though_its_authority_is_trusted(callers: dict[str, Caller]) -> None:
    reason = Doorkeeper("other", cast("StateReader", Known()), SystemClock()).refused(callers["node"], "NodeRelay/View")
    assert reason == "the certificate belongs to node n1 of cluster test, not to a node of cluster other"


def test_a_connection_does_not_outlive_its_certificate_for_another_call(callers: dict[str, Caller]) -> None:
    late = Late()
    reason = Doorkeeper("test", cast("StateReader", Known()), late).refused(callers["host"], "AgentGateway/Renew")
    assert reason == (
        "the certificate of host h1 of cluster test has expired since this connection was made; connect again"
    )


class Late(SystemClock):
    def now_ms(self) -> int:
        return super().now_ms() + 10 * 365 * 86_400_000
