"""What Prometheus scrapes: the state of the cluster as this node's replica has it, and what this node itself counted.

Nothing is kept between two scrapes: the gauges are reckoned from the state, and the counter of collections is a record
of it (`State.tallies`), so it outlives every node and is the same on all of them. Values of the whole cluster are
therefore never to be summed over nodes. Labels are bounded by the number of hosts; none has the name of a microVM.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controlplane.api.http.gc_views import oldest
from controlplane.decide.gc import GCPlan
from controlplane.machine.evacuation_rules import availability
from controlplane.machine.state import State
from controlplane.model.gc import LeftoverKind, Trigger
from controlplane.model.resources import Availability, HostPhase

_DUE = "nothing"


class _Once(Collector):
    """The families of one scrape."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def exposition(state: State, made: GCPlan, refused: Mapping[Trigger, int], *, age_s: float) -> bytes:
    """The text format.

    made: a plan of every trigger. refused: collections that were refused to this node. age_s: what was acknowledged
    elsewhere in so many seconds may be missing.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Once([*_collection(state, made, refused), *_hosts(state), *_replica(state, age_s)]))
    return generate_latest(registry)


def _collection(state: State, made: GCPlan, refused: Mapping[Trigger, int]) -> Iterator[Metric]:
    yield _gauge(
        "gc_candidates",
        "What may be collected, by what it waits for; by nothing: it is due.",
        ("trigger", "waits_for"),
        {
            **dict.fromkeys(((trigger.value, _DUE) for trigger in Trigger), 0),
            **Counter((each.command.trigger.value, _DUE) for each in made.collect),
            **Counter((each.trigger.value, each.waits_for.value) for each in made.waiting),
        },
    )
    yield _gauge(
        "gc_oldest_age_seconds",
        "For how long the oldest of what may be collected has been so.",
        ("trigger",),
        {(trigger.value,): max(made.at - since, 0) / 1000 for trigger, since in oldest(made).items()},
    )
    tallies = state.tallies
    yield _counter(
        "gc_collected",
        "What was collected since the cluster began.",
        {each.value: tally.collected if (tally := tallies.get(each.value)) is not None else 0 for each in Trigger},
    )
    yield _counter(
        "gc_refused",
        "Collections of this node that had become impossible since they were decided.",
        {each.value: refused.get(each, 0) for each in Trigger},
    )


def _hosts(state: State) -> Iterator[Metric]:
    hosts = sorted(state.hosts.items())
    phases = Counter(host.phase for _, host in hosts)
    uses = Counter(availability(host) for _, host in hosts if host.declared)
    yield _gauge("hosts", "Hosts by phase.", ("phase",), {(each.value,): phases[each] for each in HostPhase})
    yield _gauge(
        "hosts_available",
        "Declared hosts by what they are for.",
        ("availability",),
        {(each.value,): uses[each] for each in Availability},
    )
    yield _gauge(
        "host_unmanaged_microvms",
        "MicroVMs on a host that nobody declared.",
        ("host",),
        {(name,): len(host.unmanaged) for name, host in hosts},
    )
    items, taken = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    for name, host in hosts:
        for kind in (LeftoverKind.FOLDER, LeftoverKind.TAP, LeftoverKind.VOLUMES):
            items[name, kind.value] = 0
        for left in host.left_behind:
            items[name, left.kind.value] += 1
            taken[name, left.kind.value] += left.bytes
    yield _gauge("host_left_behind", "Things of microVMs that are gone.", ("host", "kind"), items)
    yield _gauge("host_left_behind_bytes", "What these take on the host's disk.", ("host", "kind"), taken)


def _replica(state: State, age_s: float) -> Iterator[Metric]:
    sizes = {"declared": len(state.names), "waiting_for_a_host": len(state.pending), "failed": len(state.failed)}
    yield _gauge("microvms", "MicroVMs; those that wait or failed are declared, too.", ("what",), _one_label(sizes))
    yield GaugeMetricFamily("flintlock_state_revision", "Of this node's replica.", value=state.revision)
    yield GaugeMetricFamily(
        "flintlock_state_age_seconds", "What was acknowledged elsewhere in that time may be missing.", value=age_s
    )


def _gauge(name: str, help: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]) -> Metric:
    family = GaugeMetricFamily(f"flintlock_{name}", help, labels=labels)
    for key in sorted(values):
        family.add_metric(key, values[key])
    return family


def _counter(name: str, help: str, values: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(f"flintlock_{name}", help, labels=("trigger",))
    for trigger, value in values.items():
        family.add_metric((trigger,), value)
    return family


def _one_label(values: Mapping[str, float]) -> dict[tuple[str, ...], float]:
    return {(key,): value for key, value in values.items()}
