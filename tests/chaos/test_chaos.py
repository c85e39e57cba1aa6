"""The faults of chaos.feature, and what an operator expects of them."""

from __future__ import annotations

import signal
import time

from chaos.fleet import HOSTS, MOVERS, NODES, PATIENCE_S, PET
from chaos.results import Options
from chaos.scene import Scene
from pytest_bdd import given, parsers, scenarios, then, when
from support.cluster import within

scenarios("features/chaos.feature")

HOW = {"killed": signal.SIGKILL, "frozen": signal.SIGSTOP}


# -- Given -------------------------------------------------------------------------------------------------------------


@given("the wall clocks of nodes and agents can be set")
def _faked_clocks(scene: Scene) -> None:
    fleet = scene.fleet
    fleet.nodes.fake_clocks()
    for name in NODES:
        _restart_node(scene, name)
    for host in fleet.hosts.values():
        host.faked_clock = True
        host.end("agent")
        host.start()
    fleet.await_ready_hosts(PATIENCE_S)
    fleet.await_agreement(PATIENCE_S)


@given("a snapshot is saved")
def _save(scene: Scene) -> None:
    scene.fleet.flintctl("snapshot", "save", str(scene.fleet.directory / "backup"))


@given(parsers.parse('the agent of the host of "{name}" has a watchdog that takes no notice of the end of leases'))
def _deaf(scene: Scene, name: str) -> None:
    host = scene.host_of(name)
    host.deaf_watchdog = True
    host.end("agent")
    host.end("watchdog")
    host.start()
    within(20, lambda: host.pids("watchdog"), "the broken watchdog is there")
    scene.fleet.await_ready_hosts(PATIENCE_S)
    scene.fleet.await_agreement(PATIENCE_S)


# -- When: networks and power ------------------------------------------------------------------------------------------


@when(parsers.parse('the host of "{name}" is cut off'))
def _cut_off(scene: Scene, name: str) -> None:
    host = scene.host_of(name)
    scene.strike(host)
    scene.fleet.network.unplug(host.name)


@when(parsers.parse('the leader and 2 hosts, that of "{name}" among them, are split from the rest'))
def _split(scene: Scene, name: str) -> None:
    first = scene.host_of(name)
    second = next(host for host in scene.fleet.hosts.values() if host is not first)
    leader = within(20, scene.fleet.leader, "a leader")
    scene.strike(first, second)
    few = [leader, first.name, second.name]
    scene.fleet.network.split(few, [each for each in (*NODES, *HOSTS) if each not in few])


@when("the leader is cut off")
def _cut_leader(scene: Scene) -> None:
    leader = within(20, scene.fleet.leader, "a leader")
    scene.strike()
    scene.fleet.network.split([leader], [each for each in (*NODES, *HOSTS) if each != leader])


@when(parsers.parse('the host of "{name}" hears nobody'))
def _hears_nobody(scene: Scene, name: str) -> None:
    host = scene.host_of(name)
    scene.strike(host)
    scene.fleet.network.cut((node, host.name) for node in NODES)


@when(parsers.parse('the host of "{name}" is not heard'))
def _is_not_heard(scene: Scene, name: str) -> None:
    host = scene.host_of(name)
    scene.strike(host)
    scene.fleet.network.cut((host.name, node) for node in NODES)


@when(parsers.parse("{percent:d} percent of all packets between nodes and hosts are lost for {seconds:d} seconds"))
def _lose(scene: Scene, percent: int, seconds: int) -> None:
    scene.strike()
    scene.fleet.network.lose(dict.fromkeys((*NODES, *HOSTS), percent))
    time.sleep(seconds)


@when("the network is whole again")
def _heal(scene: Scene) -> None:
    scene.fleet.network.heal()
    for host in scene.struck:
        scene.fleet.network.plug(host.name)


@when(parsers.parse('the host of "{name}" loses its power'))
def _power_off(scene: Scene, name: str) -> None:
    host = scene.host_of(name)
    scene.strike(host)
    host.power_off()


@when("that host gets its power back")
def _power_on(scene: Scene) -> None:
    scene.struck[0].power_on()


@when("that host gets its power back, with an empty disk")
def _power_on_empty(scene: Scene) -> None:
    scene.struck[0].power_on(keep_state=False)


# -- When: processes ---------------------------------------------------------------------------------------------------


@when(parsers.parse('the agent of the host of "{name}" is {how}'))
def _agent(scene: Scene, name: str, how: str) -> None:
    host = scene.host_of(name)
    scene.strike(host)
    host.send(HOW[how], "agent")


@when("that agent is started again")
def _agent_back(scene: Scene) -> None:
    scene.struck[0].end("agent")
    scene.struck[0].start()


@when("that agent is thawed")
def _agent_thawed(scene: Scene) -> None:
    scene.struck[0].send(signal.SIGCONT, "agent")


@when(parsers.parse('the watchdog of the host of "{name}" is {how}'))
def _watchdog(scene: Scene, name: str, how: str) -> None:
    host = scene.host_of(name)
    scene.strike(host)
    gone = host.send(HOW[how], "watchdog")
    scene.gone = frozenset(gone)


@when(parsers.parse('QEMU of "{name}" is {how}'))
def _qemu(scene: Scene, name: str, how: str) -> None:
    host = scene.host_of(name)
    scene.strike(host)
    host.send(HOW[how], "qemu", uid=scene.uids[name])


@when(parsers.re(r"(?P<which>the leader|a follower) is (?P<how>killed|frozen)"))
def _node(scene: Scene, which: str, how: str) -> None:
    leader = within(20, scene.fleet.leader, "a leader")
    name = leader if which == "the leader" else next(each for each in NODES if each != leader)
    scene.strike()
    (scene.fleet.nodes.end if how == "killed" else scene.fleet.nodes.freeze)(name)


@when("every node is killed")
def _kill_nodes(scene: Scene) -> None:
    scene.strike()
    scene.fleet.nodes.end()


@when("the outage has lasted as long as planned")
def _outage(scene: Scene, chaos: Options) -> None:
    time.sleep(max(scene.fault_s + chaos.outage_s - time.monotonic(), 0.0))


@when("every node runs again")
def _nodes_back(scene: Scene) -> None:
    scene.fleet.nodes.thaw(*NODES)
    scene.fleet.nodes.start()
    scene.fleet.await_service()


@when("every node is killed and restored from the snapshot")
def _restore(scene: Scene) -> None:
    fleet = scene.fleet
    fleet.nodes.end()
    for name in NODES:
        node = fleet.nodes.node(name)
        (node.data / "raft").rename(node.directory / "raft.old")
        fleet.flintctl("snapshot", "restore", str(fleet.directory / "backup"), "--config", str(node.settings))
    fleet.nodes.start()
    fleet.await_service()


# -- When: clocks and settings -----------------------------------------------------------------------------------------


@when(parsers.parse("the wall clocks of the leader jump by {seconds:d} seconds"))
def _leader_clock(scene: Scene, seconds: int) -> None:
    leader = within(20, scene.fleet.leader, "a leader")
    scene.strike()
    scene.fleet.nodes.node(leader).clock.write_text(f"{seconds:+d}\n")


@when(parsers.parse("the wall clocks of every other agent jump by {seconds:d} seconds"))
def _agent_clocks(scene: Scene, seconds: int) -> None:
    scene.strike()
    for name in HOSTS[::2]:
        scene.fleet.hosts[name].clock.write_text(f"{seconds:+d}\n")


@when('"pet" is told to restart elsewhere')
def _pet_may_move(scene: Scene) -> None:
    scene.fleet.declare(PET, {"on_host_failure": "restart_elsewhere", "on_detach": "pause"})


@when(parsers.parse("every node is restarted with leases of {seconds:d} seconds"))
def _longer_leases(scene: Scene, seconds: int) -> None:
    for name in NODES:
        scene.fleet.nodes.change_settings(name, lambda document: document.update(lease={"ttl_s": seconds}))
        _restart_node(scene, name)


def _restart_node(scene: Scene, name: str) -> None:
    scene.fleet.nodes.end(name, how=signal.SIGTERM)
    scene.fleet.nodes.start(name)
    scene.fleet.await_service()
    within(PATIENCE_S, lambda: scene.fleet.nodes.is_level(name), f"{name} has caught up")


# -- Then --------------------------------------------------------------------------------------------------------------


@then(parsers.parse("every microVM that may move and was there runs elsewhere within {seconds:d} seconds"))
def _elsewhere(scene: Scene, seconds: int) -> None:
    scene.await_others(scene.displaced, seconds)


@then(parsers.parse('"{name}" runs as a new copy within {seconds:d} seconds'))
def _new_copy(scene: Scene, name: str, seconds: int) -> None:
    scene.await_others([name], seconds)


@then(parsers.parse('"{name}" is heard again within {seconds:d} seconds'))
def _heard(scene: Scene, name: str, seconds: int) -> None:
    # What was on its way when it was frozen arrives within a moment.
    since_s = scene.fault_s + 1.0
    uid = scene.uids[name]
    within(seconds, lambda: any(each.uid == uid for each in scene.fleet.recorder.sightings(since_s)), "it is heard")


@then('"pet" runs on where it was')
def _pet_runs(scene: Scene) -> None:
    scene.assert_goes_on([PET])


@then(parsers.parse("nothing is restarted within {seconds:d} seconds"))
def _nothing_restarted(scene: Scene, seconds: int) -> None:
    time.sleep(max(scene.fault_s + seconds - time.monotonic(), 0.0))
    scene.assert_goes_on(MOVERS)


@then(parsers.parse("everything that may move has ended within {seconds:d} seconds"))
def _ended(scene: Scene, seconds: int) -> None:
    scene.assert_ended(seconds)


@then(parsers.parse("another watchdog is there within {seconds:d} seconds"))
def _replaced(scene: Scene, seconds: int) -> None:
    (host,) = scene.struck
    within(seconds, lambda: bool(set(host.pids("watchdog")) - scene.gone), "another watchdog")


@then(parsers.parse("every host is ready within {seconds:d} seconds"))
def _hosts_ready(scene: Scene, seconds: int) -> None:
    scene.fleet.await_ready_hosts(seconds)


@then(parsers.parse("everything runs once, where the API says, within {seconds:d} seconds"))
def _end(scene: Scene, seconds: int) -> None:
    scene.await_end(seconds)


@then("no microVM had two copies")
def _one_copy(scene: Scene) -> None:
    found = scene.second_copies()
    assert not found, "\n".join(found)


@then(parsers.parse("the judge finds a second copy of each within {seconds:d} seconds"))
def _found_out(scene: Scene, seconds: int) -> None:
    displaced = [scene.uids[name] for name in scene.displaced]

    def found_out() -> bool:
        found = scene.second_copies()
        return all(any(uid in line for line in found) for uid in displaced)

    within(seconds, found_out, "each is found")
