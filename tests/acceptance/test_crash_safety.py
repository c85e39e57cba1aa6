"""kill -9 of anything in the middle of real Terraform's work on a real cluster: no duplicate, no orphan, nothing lost.

Every test ends with the same question: do the API, the hosts' drivers and Terraform's state hold the same microVMs,
and is the next plan empty?
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from acceptance.terraform.runner import Flavor, Terraform, has_path_terraform
from acceptance.terraform.steps import HEADER, assert_plan_empty
from kills.rounds import provider_of, running
from support.cluster import (
    assert_nothing_left,
    assert_witnesses_agree,
    child_of,
    declared,
    items,
    leader_of,
    make_whole,
    on_drivers,
    within,
)

from controlplane.cli.dev import processes
from controlplane.cli.dev.cluster import DevCluster
from controlplane.cli.dev.processes import ProcessId
from controlplane.cli.errors import CliError

# Python's ssl leaves a socket open whose server died between the connection and the handshake, as servers here do.
pytestmark = pytest.mark.filterwarnings(
    r"ignore:Exception ignored in. <ssl\.SSLSocket:pytest.PytestUnraisableExceptionWarning"
)

COUNT = 10
FLEET = (
    HEADER
    + f"""
resource "flintlock_host" "this" {{
  for_each = toset(["h1", "h2", "h3"])
  name     = each.key
}}

resource "flintlock_namespace" "fleet" {{
  name = "fleet"
}}

resource "flintlock_microvm" "vm" {{
  count        = {COUNT}
  name         = "vm-${{count.index}}"
  namespace    = flintlock_namespace.fleet.name
  vcpu         = 1
  memory_in_mb = 64
  kernel       = {{ image = "demo/kernel:6.1" }}
  wait_for     = "ready"
  depends_on   = [flintlock_host.this]
}}
"""
)
FEW_AT_A_TIME = "-parallelism=2"
"""So that there is a middle: a simulated guest needs half a second to be ready."""


@pytest.fixture
def tf(cluster: DevCluster, mirror: Path, tmp_path: Path) -> Terraform:
    flavor: Flavor = "path" if has_path_terraform() else "lib"
    made = Terraform(flavor, tmp_path, {**cluster.layout.environment, "TF_CLI_CONFIG_FILE": str(mirror)})
    made.write(FLEET)
    made.init()
    return made


def await_middle(cluster: DevCluster, *, at_least: int = 3) -> None:
    """Until the API has accepted some of the microVMs, and not all."""
    client = cluster.client()
    accepted = within(60, lambda: len(declared(client)) >= at_least and len(declared(client)), "some are accepted")
    assert accepted < COUNT, "it was over before anything could be killed"


# -- Terraform's side --------------------------------------------------------------------------------------------------


def test_terraform_is_killed_in_the_middle_of_a_create_and_of_a_destroy(cluster: DevCluster, tf: Terraform) -> None:
    with running(tf, "apply", FEW_AT_A_TIME) as applying:
        await_middle(cluster)
        provider = provider_of(applying)
        assert provider
        applying.kill()
        # Its provider sees that it is alone, and ends by itself.
        assert processes.await_end(provider, timeout_s=30)
    accepted = declared(cluster.client())
    tf.apply()
    assert {uid for _, uid, _ in accepted} <= {uid for _, uid, _ in declared(cluster.client())}
    assert_witnesses_agree(cluster, tf, count=COUNT)
    assert_plan_empty(tf)

    with running(tf, "destroy", FEW_AT_A_TIME) as destroying:
        within(60, lambda: len(declared(cluster.client())) < COUNT, "some are gone")
        provider = provider_of(destroying)
        destroying.kill()
        assert processes.await_end(provider, timeout_s=30)
    survivors = {uid for _, uid, _ in declared(cluster.client(), deleting=False)}
    assert survivors, "it was over before it could be killed"
    # Terraform writes its local state in place: the kill may have left it whole, or, most often, empty. Take the worst.
    tf.lose_state()
    tf.apply()
    assert survivors <= {uid for _, uid, _ in declared(cluster.client())}
    assert_witnesses_agree(cluster, tf, count=COUNT)
    tf.destroy()
    assert_nothing_left(cluster)


def test_the_provider_is_killed_in_the_middle_of_a_create(cluster: DevCluster, tf: Terraform) -> None:
    with running(tf, "apply", FEW_AT_A_TIME) as applying:
        await_middle(cluster)
        assert processes.kill(provider_of(applying))
        output, _ = applying.communicate(timeout=60)
    assert applying.returncode == 1
    assert "plugin" in output.lower(), output
    accepted = declared(cluster.client())
    tf.apply()
    assert {uid for _, uid, _ in accepted} <= {uid for _, uid, _ in declared(cluster.client())}
    assert_witnesses_agree(cluster, tf, count=COUNT)
    assert_plan_empty(tf)


# -- the control plane's side ------------------------------------------------------------------------------------------


def kill_child(child: str) -> Callable[[DevCluster], None]:
    """Of the leader: its parent starts it again."""

    def kill(cluster: DevCluster) -> None:
        node = leader_of(cluster)
        old = child_of(cluster, node, child)
        assert old is not None
        assert processes.kill([old])
        within(30, lambda: child_of(cluster, node, child), f"the {child} process of {node} is started again")

    return kill


def kill_every_node(cluster: DevCluster) -> None:
    nodes = [processes.recorded(cluster.layout.run_file(node.name)) for node in cluster.layout.plan.nodes]
    everything = [each for node in nodes if node is not None for each in processes.session_of(node)]
    assert len(everything) == 3 * len(nodes)
    assert processes.kill(everything)
    cluster.start()


def kill_every_agent(cluster: DevCluster) -> None:
    for host in cluster.layout.plan.hosts:
        cluster.kill_member(host.name)
    cluster.start()


@pytest.mark.parametrize(
    "kill",
    [kill_child("front"), kill_child("raft"), kill_every_node, kill_every_agent],
    ids=["the leader's front process", "the leader's raft process", "every process of every node", "every agent"],
)
def test_an_apply_outlives_the_death_of(cluster: DevCluster, tf: Terraform, kill: Callable[[DevCluster], None]) -> None:
    with running(tf, "apply", FEW_AT_A_TIME) as applying:
        await_middle(cluster)
        kill(cluster)
        output, _ = applying.communicate(timeout=120)
    assert applying.returncode == 0, output
    make_whole(cluster)
    assert_witnesses_agree(cluster, tf, count=COUNT)
    assert_plan_empty(tf)
    # Nothing that ran was started twice for it.
    assert {starts(cluster, f"vm-{index}") for index in range(COUNT)} == {1}


def test_nothing_acknowledged_is_lost_when_every_node_dies_at_once(cluster: DevCluster, tf: Terraform) -> None:
    tf.apply()
    running_before = on_drivers(cluster)
    acknowledged: list[str] = []
    stop = threading.Event()

    def write() -> None:
        client = cluster.client(retry_for_s=0)
        while not stop.is_set():
            name = f"written-{len(acknowledged)}"
            try:
                client.request("PUT", f"/namespaces/{name}", body={"spec": {"max_vcpu": len(acknowledged)}})
            except CliError:
                return  # the one whose answer never came
            acknowledged.append(name)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        within(60, lambda: len(acknowledged) >= 30, "some writes are acknowledged")
        kill_every_node(cluster)
    finally:
        stop.set()
        writer.join(timeout=60)
    make_whole(cluster)
    client = cluster.client()
    stored = {each["name"]: each["spec"]["max_vcpu"] for each in items(client, "/namespaces")}
    assert {name: stored.get(name) for name in acknowledged} == {name: i for i, name in enumerate(acknowledged)}
    assert len(stored) <= 1 + len(acknowledged) + 1, "one write at most was under way"
    assert_same_state_everywhere(cluster)
    assert_witnesses_agree(cluster, tf, count=COUNT)
    assert on_drivers(cluster) == running_before
    assert_plan_empty(tf)


def starts(cluster: DevCluster, name: str) -> int:
    return cluster.client().get(f"/namespaces/fleet/microvms/{name}/console").text.count(" started with ")


def assert_same_state_everywhere(cluster: DevCluster) -> None:
    def same() -> bool:
        seen = [cluster.client(node=node.name).get("/cluster").body for node in cluster.layout.plan.nodes]
        return len({(each["revision"], each["state_hash"]) for each in seen}) == 1

    within(30, same, "every node has the same state")


def test_a_node_is_started_while_the_children_of_its_killed_parent_still_end(cluster: DevCluster) -> None:
    layout = cluster.layout
    name = next(node.name for node in layout.plan.nodes if node.name != leader_of(cluster))
    parent, *children = processes.session_of(_recorded(cluster, name))
    assert len(children) == 2
    said = layout.log(name).read_text().count("process.waiting")
    for child in children:
        # So that what is started next meets their lock and their ports.
        child.signal(signal.SIGSTOP)
    assert processes.kill([parent])
    cluster.start([name])
    successor = _recorded(cluster, name)
    try:
        within(20, lambda: layout.log(name).read_text().count("process.waiting") > said, f"{name} waits")
    finally:
        for child in children:
            child.signal(signal.SIGCONT)
    cluster.await_ready()
    assert successor.alive
    assert processes.await_end(children, timeout_s=10)


def _recorded(cluster: DevCluster, name: str) -> ProcessId:
    found = processes.recorded(cluster.layout.run_file(name))
    assert found is not None
    return found
