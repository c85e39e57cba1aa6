"""Data keys, and the values of microVMs that are sealed with them."""

from __future__ import annotations

from simulation.random_commands.choices import SEALED_KEY, Choices

from controlplane.machine.secrets import active_key
from controlplane.machine.state import State
from controlplane.model.commands import AddDataKey, Command, DropDataKey, Reseal, Resealed
from controlplane.model.secrets import SealedValue

DIGESTS = tuple(f"hmac-sha256:{digit * 64}" for digit in "12")


def secret(choices: Choices, state: State) -> Command:
    """About data keys, and what is sealed with them."""
    keys = sorted(state.data_keys)
    key = choices.pick((*keys, choices.name()))
    match choices.pick(("add", "reseal", "reseal", "drop", "drop")):
        case "add":
            active = active_key(state)
            replaces = choices.pick((None, active.id, active.id)) if active is not None else None
            return AddDataKey(id=f"k{choices.number}", key=SEALED_KEY, replaces=replaces)
        case "reseal":
            value = Resealed(digest=choices.pick(DIGESTS), sealed=SealedValue(key_id=key, box=f"{choices.number}"))
            uids = sorted(uid for uid, vm in state.microvms.items() if vm.sealed)
            return Reseal(values={uid: {"user-data": value} for uid in uids[:2]} or {"gone": {"user-data": value}})
        case _:
            return DropDataKey(id=key)


def sealed_values(choices: Choices, state: State) -> dict[str, SealedValue]:
    """Of one microVM in three, once there is a key; now and then with none that is there."""
    if not state.data_keys or not choices.chance(35):
        return {}
    key = choices.pick((*sorted(state.data_keys), *sorted(state.data_keys), choices.name()))
    return {"user-data": SealedValue(key_id=key, box=f"{choices.number}")}
