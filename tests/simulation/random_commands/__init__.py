"""Random histories for the machine: plausible commands mostly, nonsense often, from one seed.

Values come from small pools, so that commands meet: the same names, uids, hosts, sessions, epochs and generations turn
up again and again, right, stale or invented. `Source` is all the randomness there is, so hypothesis can shrink a
failure and a plain seed can replay one in another process.

A maker is a function of the choices and the state that makes one command. `choices` holds the pools and how a value is
drawn from them; each other module holds the makers of one subject; what is drawn how often is the table here.
"""

from __future__ import annotations

from collections.abc import Callable

from simulation.random_commands.agents import agent_connected, agent_lost, inventory, rejoined, report
from simulation.random_commands.choices import Choices, Source
from simulation.random_commands.cluster import audit, begin_incarnation, raise_machine_version
from simulation.random_commands.credentials import api_token, credential
from simulation.random_commands.emptying import act_on_host, evict, host_evacuated, left, mark_staying
from simulation.random_commands.garbage import KEEPS_NOTHING, adopt, collect, hold, release
from simulation.random_commands.groups import declare_group, step_group
from simulation.random_commands.leases import (
    confirm,
    host_detached,
    host_fenced,
    host_heard,
    host_suspected,
    override,
    resurrect,
)
from simulation.random_commands.policies import declare_policy
from simulation.random_commands.scheduling import mark_unplaced, place
from simulation.random_commands.secrets import secret
from simulation.random_commands.users import act, declare_host, declare_microvm, declare_namespace, delete

from controlplane.machine.state import State
from controlplane.model.commands import AgentConnected, Batch, Command, DeclareHost, DeclareNamespace, Envelope
from controlplane.model.spec import HostSpec, NamespaceSpec

__all__ = ["KEEPS_NOTHING", "RandomCommands", "Source"]

Maker = Callable[[Choices, State], Command]


def batch(choices: Choices, state: State) -> Command:
    """Of what users ask for, as a rule."""
    makers = BATCHED if not choices.nonsense() else MAKERS
    return Batch(
        commands=[
            choices.seal(choices.pick(makers)(choices, state), keys=False) for _ in range(choices.pick((0, 1, 2, 3)))
        ]
    )


BATCHED: tuple[Maker, ...] = (
    declare_namespace,
    declare_policy,
    declare_host,
    declare_microvm,
    declare_microvm,
    delete,
    act,
)
MAKERS: tuple[Maker, ...] = (
    *BATCHED,
    agent_connected,
    agent_connected,
    agent_lost,
    report,
    report,
    report,
    place,
    place,
    place,
    mark_unplaced,
    batch,
    declare_microvm,
    place,
    report,
    host_suspected,
    host_heard,
    host_detached,
    host_fenced,
    host_fenced,
    confirm,
    override,
    resurrect,
    resurrect,
    rejoined,
    rejoined,
    begin_incarnation,
    raise_machine_version,
    hold,
    release,
    collect,
    adopt,
    adopt,
    act_on_host,
    evict,
    evict,
    evict,
    mark_staying,
    left,
    left,
    host_evacuated,
    api_token,
    api_token,
    audit,
    credential,
    credential,
    secret,
    secret,
    declare_group,
    step_group,
)
"""Each as often as it is to be drawn. A seed replays as long as the order stays."""


class RandomCommands:
    """Makes one envelope after the other; looks at the state only to make plausible ones."""

    def __init__(self, source: Source) -> None:
        self._choices = Choices(source)

    def opening(self) -> list[Envelope]:
        """A namespace and hosts with agents, so that histories get somewhere."""
        commands: list[Command] = [DeclareNamespace(name="a", uid="ns-a", spec=NamespaceSpec())]
        for name in ("a", "b"):
            commands.append(DeclareHost(name=name, uid=f"host-{name}", spec=HostSpec(), labels={"zone": name}))
            commands.append(
                AgentConnected(
                    host=name,
                    uid=f"host-{name}",
                    session="a",
                    node="n1",
                    inventory=inventory(4, 4, 0),
                    lease_ttl_ms=10_000,
                )
            )
        return [self._choices.seal(command) for command in commands]

    def next(self, state: State) -> Envelope:
        return self._choices.seal(self._choices.pick(MAKERS)(self._choices, state))
