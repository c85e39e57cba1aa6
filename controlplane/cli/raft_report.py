"""What the nodes say of the log, put side by side. Pure: documents of `GET /raft` in, a report out.

A node alone cannot see that it disagrees with another; whoever asked them all can. `problems` make the cluster
degraded: redundancy is lost, or the nodes contradict each other. `warnings` are what an operator chose and should know.
"""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.cli.columns import at
from controlplane.cli.values import Json, dig, mapping, objects, text

MAX_LAG_ENTRIES = 5_000
MAX_SILENCE_MS = 5_000
_FSYNC_NEVER = "fsync: never"


def report(answers: Mapping[str, Json], silent: Mapping[str, str]) -> Json:
    """`answers`: each node's `GET /raft`; `silent`: why a node, or an endpoint, did not answer."""
    newest = max(answers.values(), key=lambda a: (a.get("incarnation", 0), a.get("term", 0), a.get("role") == "leader"))
    leader = _leader(answers, newest)
    of_leader = answers.get(leader or "")
    members = {text(member.get("node")): member for member in objects(of_leader or newest, "members")}
    names = sorted({*members, *answers, *(name for name in silent if name in members)})
    peers = {text(peer.get("node")): peer for peer in objects(of_leader or {}, "peers")}
    nodes = [_node(name, members.get(name), answers.get(name), peers.get(name), silent.get(name)) for name in names]
    problems = [*_contradictions(answers), *_shortages(nodes, leader, newest)]
    warnings: list[str] = []
    for name, answer in sorted(answers.items()):
        for concern in [text(each) for each in answer.get("concerns") or ()]:
            (warnings if concern.startswith(_FSYNC_NEVER) else problems).append(f"{name}: {concern}")
    warnings += _upgrade(answers)
    warnings += [f"{endpoint}: {why}" for endpoint, why in sorted(silent.items()) if endpoint not in members]
    return {
        "healthy": not problems,
        "leader": leader,
        "term": newest.get("term"),
        "incarnation": newest.get("incarnation"),
        "commit_index": newest.get("commit_index"),
        "problems": problems,
        "warnings": warnings,
        "nodes": nodes,
    }


def _leader(answers: Mapping[str, Json], newest: Json) -> str | None:
    leading = [
        name
        for name, answer in answers.items()
        if answer.get("role") == "leader" and answer.get("term") == newest.get("term") and answer.get("has_quorum")
    ]
    return leading[0] if leading else newest.get("leader") if newest.get("has_quorum") else None


def _node(name: str, member: Json | None, answer: Json | None, peer: Json | None, why: str | None) -> Json:
    """One row: what it says of itself, else what the leader knows of it."""
    own = answer or {}
    seen = peer or {}
    return {
        "node": name,
        "member": text((member or {}).get("role")) or None,
        "address": (member or {}).get("address"),
        "api": (member or {}).get("api"),
        "answers": answer is not None,
        "error": why,
        **{
            key: own.get(key)
            for key in (
                "role",
                "term",
                "incarnation",
                "machine_version",
                "commit_index",
                "applied_index",
                "last_index",
                "fsync",
                "fsync_latency",
                "snapshot_index",
                "snapshot_age_s",
                "log_entries",
                "log_bytes",
                "state_hash",
                "state_hash_index",
                "uptime_s",
            )
        },
        "lag_entries": seen.get("lag_entries"),
        "last_contact_ms": seen.get("last_contact_ms"),
        "connected_to_leader": seen.get("connected"),
    }


def _contradictions(answers: Mapping[str, Json]) -> list[str]:
    """What two nodes say that cannot both be so."""
    found: list[str] = []
    incarnations = sorted({answer.get("incarnation") or 0 for answer in answers.values()} - {0})
    if len(incarnations) > 1:
        found.append(f"nodes of different incarnations answer ({incarnations}): those of the lower ones must be ended")
    leading: dict[int, list[str]] = {}
    for name, answer in sorted(answers.items()):
        if answer.get("role") == "leader":
            leading.setdefault(int(answer.get("term") or 0), []).append(name)
    found += [f"{' and '.join(names)} both lead in term {term}" for term, names in leading.items() if len(names) > 1]
    hashes: dict[int, dict[str, list[str]]] = {}
    for name, answer in sorted(answers.items()):
        index = int(answer.get("state_hash_index") or 0)
        if index:
            hashes.setdefault(index, {}).setdefault(text(answer.get("state_hash")), []).append(name)
    for index, by_hash in sorted(hashes.items()):
        if len(by_hash) > 1:
            sides = " against ".join(", ".join(names) for names in by_hash.values())
            found.append(f"the state at {index} differs: {sides}")
    return found


def _upgrade(answers: Mapping[str, Json]) -> list[str]:
    """That nodes run different builds: normal for a while, and not for long."""
    known = {name: int(answer.get("machine_version") or 0) for name, answer in sorted(answers.items())}
    if len(set(known.values())) < 2:
        return []
    each = ", ".join(f"{name} {version}" for name, version in known.items())
    return [f"an upgrade is under way (machine versions: {each}): what needs the newest waits until all nodes know it"]


def _shortages(nodes: list[Json], leader: str | None, newest: Json) -> list[str]:
    found: list[str] = [] if leader else ["no leader: nothing can be written"]
    voters = [node for node in nodes if node["member"] == "voter"]
    alive = [node for node in voters if node["answers"] or node["connected_to_leader"]]
    if voters and len(alive) <= len(voters) // 2:
        found.append(f"{len(alive)} of {len(voters)} voters can be reached: {len(voters) // 2 + 1} are needed")
    for node in nodes:
        name = node["node"]
        if node["member"] is None:
            found.append(f"{name}: answers, and is no member of the cluster")
        elif not node["answers"]:
            seen = (
                "the leader still reaches it" if node["connected_to_leader"] else "the leader does not reach it either"
            )
            found.append(f"{name}: does not answer ({node['error'] or 'its API address is not known'}); {seen}")
        elif leader and name != leader and node["connected_to_leader"] is False:
            found.append(f"{name}: the leader does not reach it")
        if (node["lag_entries"] or 0) > MAX_LAG_ENTRIES:
            found.append(f"{name}: is {node['lag_entries']} entries behind")
        elif name != leader and (node["last_contact_ms"] or 0) > MAX_SILENCE_MS and node["connected_to_leader"]:
            found.append(f"{name}: the leader has not heard it for {node['last_contact_ms'] / 1000:.0f} s")
    return found


# -- for people --------------------------------------------------------------------------------------------------------

HEADERS = ["NODE", "ROLE", "TERM", "COMMIT", "APPLIED", "LAG", "CONTACT", "FSYNC P50/P99", "SNAPSHOT", "LOG", "HASH"]


def row(node: Json, leader: str | None) -> list[str]:
    """The cells of one node under HEADERS."""
    role = text(node["role"]) or text(node["member"])
    if node["member"] == "learner":
        role = "learner"
    if not node["answers"]:
        role += " (silent)"
    latency = mapping(node, "fsync_latency")
    if node["fsync"] == "never":
        fsync = "never"
    else:
        fsync = f"{latency['p50_ms']:.1f}/{latency['p99_ms']:.1f} ms" if latency.get("samples") else ""
    is_leader = node["node"] == leader
    return [
        text(node["node"]),
        role,
        text(node["term"]),
        text(node["commit_index"]),
        text(node["applied_index"]),
        "" if is_leader else text(node["lag_entries"]),
        "" if is_leader or node["last_contact_ms"] is None else f"{node['last_contact_ms']} ms",
        fsync,
        _age(node["snapshot_age_s"]),
        size(node["log_bytes"]),
        text(node["state_hash"])[:12] + (f"@{node['state_hash_index']}" if node["state_hash"] else ""),
    ]


MEMBER_HEADERS = ["NODE", "ROLE", "RAFT", "API", "GATEWAY"]
_MEMBER_CELLS = tuple(at(key) for key in ("node", "role", "address", "api", "gateway"))


def member_row(member: Json) -> list[str]:
    return [cell(member, 0) for cell in _MEMBER_CELLS]


def progress(answer: Json, node: str) -> str:
    """How far a node that catches up is, as the leader sees it; empty when that is not known."""
    peer = next((peer for peer in objects(answer, "peers") if peer.get("node") == node), None)
    if peer is None:
        return ""
    matched, last = peer.get("match_index"), dig(answer, "last_index")
    if matched is None or not last:
        return "connected" if peer.get("connected") else "not connected yet"
    return f"{matched} of {last} entries ({100 * int(matched) // int(last)} %)"


def size(count: object) -> str:
    """Bytes for people."""
    if not isinstance(count, int):
        return ""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return ""


def _age(seconds: object) -> str:
    if not isinstance(seconds, int | float):
        return ""
    for unit, length in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f}{unit}"
    return f"{seconds:.0f}s"
