"""Settings: what a good file means, and that each bad one is refused naming file, field and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from controlplane.identity.authority import Authority
from controlplane.settings import AgentFileSettings, LeaseSettings, SettingsError, load_agent, load_node, split_address

Document = dict[str, Any]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    authority = Authority.create(tmp_path / "pki", cluster_id="demo")
    authority.issue_node("n1", tmp_path / "pki")
    authority.issue_host("h1", tmp_path / "pki")
    (tmp_path / "pki" / "tokens.json").write_text("present")
    return tmp_path


def _tls(name: str = "n1") -> Document:
    return {"ca": "pki/ca.crt", "certificate": f"pki/{name}.crt", "key": f"pki/{name}.key"}


def _node() -> Document:
    return {
        "node": "n1",
        "cluster_id": "demo",
        "data_dir": "data",
        "raft": {"listen": "127.0.0.1:7101", "peers": {"n2": "127.0.0.1:7102"}},
        "gateway": {"listen": "127.0.0.1:7201", "peers": {"n2": "127.0.0.1:7202"}},
        "http": {"listen": "127.0.0.1:7301"},
        "tls": _tls(),
        "tokens_file": "pki/tokens.json",
    }


def _agent() -> Document:
    return {
        "host": "h1",
        "state_dir": "state",
        "endpoints": {"n1": "127.0.0.1:7201"},
        "tls": _tls("h1"),
        "drivers": [{"kind": "qemu", "images_dir": "/var/lib/images"}, {"kind": "simulated"}],
    }


def _write(directory: Path, document: object) -> Path:
    path = directory / "settings.yaml"
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
    return path


def test_node_file(files: Path) -> None:
    settings = load_node(_write(files, _node()), {})
    assert settings.data_dir == files / "data"
    assert settings.tls.key == files / "pki" / "n1.key"
    assert settings.raft.peers == {"n2": "127.0.0.1:7102"}
    assert settings.fsync == "always"
    assert settings.http.address == "127.0.0.1:7301"


def test_agent_file(files: Path) -> None:
    settings = load_agent(_write(files, _agent()), {})
    assert [driver.kind for driver in settings.drivers] == ["qemu", "simulated"]
    assert settings.state_dir == files / "state"
    assert settings.capacity.vcpu is None
    assert AgentFileSettings.model_validate(settings.model_dump()) == settings


def test_environment_overrides_the_file(files: Path) -> None:
    path = _write(files, _node())
    environ = {"FLINTLOCK_NODE__RAFT__LISTEN": "0.0.0.0:9", "FLINTLOCK_NODE__ELECTION__MAX_S": "3", "HOME": "/"}
    settings = load_node(path, environ)
    assert settings.raft.listen == "0.0.0.0:9"
    assert settings.election.max_s == 3.0


def test_how_long_to_wait_for_a_lease() -> None:
    usual = LeaseSettings()
    assert usual.ended_after_s(10) == pytest.approx(11)
    assert usual.fenced_after_s(10) == pytest.approx(14.3)
    patient = LeaseSettings(resurrect_after_s=20)
    assert patient.fenced_after_s(10) == 20
    assert patient.fenced_after_s(30) == pytest.approx(36.3), "a longer lease may be out than this node grants"


@pytest.mark.parametrize(("text", "expected"), [("10.0.0.1:80", ("10.0.0.1", 80)), ("[::1]:65535", ("::1", 65535))])
def test_addresses(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


def _with(document: Document, **changes: object) -> Document:
    return {**document, **changes}


def _without(document: Document, field: str) -> Document:
    return {key: value for key, value in document.items() if key != field}


BAD_NODES: dict[str, tuple[object, list[str]]] = {
    "not yaml": ("node: [", ["line 1"]),
    "two documents": ("node: a\n---\nnode: b\n", ["2 documents"]),
    "a list": ("- a\n", ["must be a mapping"]),
    "repeated key": ("node: a\nnode: b\n", ["line 2", "'node' appears twice"]),
    "anchor": ("node: &x a\n", ["line 1", "anchors and aliases"]),
    "empty": ("", ["node: is required", "raft: is required", "tokens_file: is required"]),
    "unknown field": (_with(_node(), nod="x"), ["nod: is not a known setting"]),
    "missing field": (_without(_node(), "cluster_id"), ["cluster_id: is required"]),
    "bad name": (_with(_node(), node="N 1"), ["node: 'N 1' must be lower-case"]),
    "no port": (_with(_node(), http={"listen": "127.0.0.1"}), ["http.listen: must be HOST:PORT", "'127.0.0.1'"]),
    "port range": (_with(_node(), http={"listen": "h:70000"}), ["http.listen: port 70000 is not between"]),
    "ipv6 without brackets": (_with(_node(), http={"listen": "::1:80"}), ["http.listen: must be HOST:PORT"]),
    "own name among peers": (
        _with(_node(), raft={"listen": "a:1", "peers": {"n1": "b:2"}}),
        ["raft.peers: lists this node (n1)"],
    ),
    "joins nobody": (
        _with(_node(), raft={"listen": "a:1", "join": True}, gateway={"listen": "a:2"}),
        ["raft: join needs the existing members in raft.peers"],
    ),
    "peers differ": (
        _with(_node(), gateway={"listen": "a:1", "peers": {}}),
        ["gateway.peers: must name the same nodes as raft.peers", "n2"],
    ),
    "one port for two": (
        _with(_node(), http={"listen": "127.0.0.1:7101"}),
        ["127.0.0.1:7101", "raft.listen", "http.listen", "own port"],
    ),
    "election order": (_with(_node(), election={"min_s": 1, "max_s": 1}), ["election: max_s (1.0) must be at least"]),
    "election nan": (_with(_node(), election={"min_s": float("nan")}), ["election.min_s:"]),
    "impatient cleanup": (
        _with(_node(), raft=_with(_node()["raft"], dead_server_cleanup_s=299)),
        ["raft: dead_server_cleanup_s: 0 (never) or at least 300 s", "never comes back"],
    ),
    "snapshots all the time": (
        _with(_node(), raft=_with(_node()["raft"], snapshot_entries=1, snapshot_age_s=0)),
        ["raft.snapshot_entries: input should be greater than or equal to 100", "raft.snapshot_age_s:"],
    ),
    "lease shorter than three heartbeats": (
        _with(_node(), lease={"ttl_s": 2.5, "suspect_s": 1}),
        ["lease: ttl_s: two lost heartbeats would end a lease: 3 x 1 = 3 s > 2.5 s"],
    ),
    "suspect after the lease": (
        _with(_node(), lease={"ttl_s": 4, "suspect_s": 4}),
        ["lease: suspect_s: a host would be detached before it is suspect: 4 s >= ttl_s = 4 s"],
    ),
    "resurrected while it may run": (
        _with(_node(), lease={"resurrect_after_s": 12}),
        [
            "lease: resurrect_after_s: a host could still run when its VM is resurrected: "
            "(1 + 0.1) x (10 + 3) = 14.3 s > 12 s"
        ],
    ),
    "resurrected while a longer lease runs": (
        _with(_node(), lease={"ttl_s": 20, "skew": 0.5, "fence_s": 1, "resurrect_after_s": 31}),
        ["(1 + 0.5) x (20 + 1) = 31.5 s > 31 s"],
    ),
    "no time to act": (_with(_node(), lease={"fence_s": 0.5}), ["lease.fence_s:", "greater than or equal to 1", "0.5"]),
    "perfect clocks": (_with(_node(), lease={"skew": 0}), ["lease.skew:", "greater than or equal to 0.01"]),
    "hopeless clocks": (_with(_node(), lease={"skew": 0.6}), ["lease.skew:", "less than or equal to 0.5"]),
    "no end of a lease": (_with(_node(), lease={"ttl_s": float("inf")}), ["lease.ttl_s:"]),
    "share of hosts": (_with(_node(), failover={"max_unhealthy": 1.5}), ["failover.max_unhealthy:", "equal to 1"]),
    "nothing in a round": (_with(_node(), failover={"per_round": 0}), ["failover.per_round:", "equal to 1"]),
    "what was before leases": (_with(_node(), host_timeout_s=10), ["host_timeout_s: is not a known setting"]),
    "fsync": (_with(_node(), fsync="sometimes"), ["fsync: input should be 'always' or 'never'", "'sometimes'"]),
    "missing key file": (
        _with(_node(), tls=_with(_tls(), key="pki/none.key")),
        ["tls.key:", "none.key does not exist", "flintctl dev up"],
    ),
    "API tokens that outlive the longest": (
        _with(_node(), api_tokens={"ttl_s": 7200, "max_ttl_s": 3600}),
        ["api_tokens: ttl_s: 7200 s is over max_ttl_s = 3600 s"],
    ),
    "issuer over http": (
        _with(_node(), oidc=[{"issuer": "http://issuer.example", "audiences": ["a"]}]),
        ["oidc.0.issuer: must be https; http is for an issuer on this machine alone"],
    ),
    "issuers whose users could be taken for each other's": (
        _with(
            _node(),
            oidc=[
                {"issuer": "https://a.example", "audiences": ["a"]},
                {"issuer": "https://b.example", "audiences": ["a"], "prefix": "oidc:corp:"},
            ],
        ),
        ["oidc.1.prefix: 'oidc:corp:' and 'oidc:' of https://a.example begin alike"],
    ),
    "missing authority of an issuer": (
        _with(_node(), oidc=[{"issuer": "https://a.example", "audiences": ["a"], "ca_file": "none.pem"}]),
        ["oidc.0.ca_file:", "none.pem does not exist"],
    ),
    "missing tokens": (_with(_node(), tokens_file="none.json"), ["tokens_file:", "none.json does not exist"]),
    "tls unknown field": (_with(_node(), tls=_with(_tls(), cert="x")), ["tls.cert: is not a known setting"]),
}


@pytest.mark.parametrize("case", BAD_NODES)
def test_bad_node_file(files: Path, case: str) -> None:
    document, expected = BAD_NODES[case]
    path = _write(files, document)
    with pytest.raises(SettingsError) as caught:
        load_node(path, {})
    for line in str(caught.value).splitlines():
        assert line.startswith(f"{path}: ")
    for text in expected:
        assert text in str(caught.value)


BAD_AGENTS: dict[str, tuple[object, list[str]]] = {
    "no endpoints": (_with(_agent(), endpoints={}), ["endpoints:", "at least 1"]),
    "endpoint address": (_with(_agent(), endpoints={"n1": "x"}), ["endpoints.n1: must be HOST:PORT"]),
    "no driver": (_with(_agent(), drivers=[]), ["drivers:", "at least 1"]),
    "unknown driver": (_with(_agent(), drivers=[{"kind": "xen"}]), ["drivers.0:", "'xen'", "qemu"]),
    "driver twice": (
        _with(_agent(), drivers=[{"kind": "simulated"}, {"kind": "simulated"}]),
        ["drivers.1: simulated is listed twice"],
    ),
    "driver without images": (_with(_agent(), drivers=[{"kind": "qemu"}]), ["drivers.0.images_dir: is required"]),
    "driver unknown field": (
        _with(_agent(), drivers=[{"kind": "simulated", "boots": 1}]),
        ["drivers.0.boots: is not a known setting"],
    ),
    "capacity": (_with(_agent(), capacity={"vcpu": 0}), ["capacity.vcpu:", "greater than or equal to 1", "0"]),
    "capacity text": (_with(_agent(), capacity={"memory_in_mb": "lots"}), ["capacity.memory_in_mb:", "'lots'"]),
    "heartbeat": (_with(_agent(), heartbeat_s=0), ["heartbeat_s:", "0.1"]),
    "heartbeats that keep no lease": (_with(_agent(), heartbeat_s=4), ["heartbeat_s:", "less than or equal to 3"]),
    "flintlockd token": (
        _with(_agent(), drivers=[{"kind": "flintlockd", "endpoint": "a:1", "token_file": "none"}]),
        ["drivers.0.token_file:", "does not exist"],
    ),
    "host name": (_with(_agent(), host="-h"), ["host: '-h' must be lower-case"]),
}


@pytest.mark.parametrize("case", BAD_AGENTS)
def test_bad_agent_file(files: Path, case: str) -> None:
    document, expected = BAD_AGENTS[case]
    with pytest.raises(SettingsError) as caught:
        load_agent(_write(files, document), {})
    for text in expected:
        assert text in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read: No such file"):
        load_node(tmp_path / "none.yaml", {})


def test_key_that_everybody_can_read_is_refused(files: Path) -> None:
    (files / "pki" / "n1.key").chmod(0o644)
    with pytest.raises(SettingsError, match=r"tls\.key: everybody can read .* chmod 600"):
        load_node(_write(files, _node()), {})


TLS = {
    "no authority": ({"ca": "pki/n1.key"}, "tls.ca: ", "n1.key holds no PEM certificate"),
    "no certificate": ({"certificate": "pki/n1.key"}, "tls.certificate: ", "n1.key holds no PEM certificate"),
    "no key": ({"key": "pki/tokens.json"}, "tls.key: ", "tokens.json holds no PEM key"),
    "another key": ({"key": "pki/h1.key"}, "tls.key: ", "h1.key is not the key of"),
    "another authority": ({"ca": "other/ca.crt"}, "tls.certificate: ", "was not issued by the authority in"),
    "a host's": (_tls("h1"), "tls.certificate: ", "belongs to host h1 of cluster demo, not to node n1 of cluster demo"),
}


@pytest.mark.parametrize("case", TLS)
def test_certificates_that_cannot_work_are_named(files: Path, case: str) -> None:
    Authority.create(files / "other", cluster_id="other")
    (files / "pki" / "tokens.json").chmod(0o600)
    change, field, words = TLS[case]
    with pytest.raises(SettingsError) as caught:
        load_node(_write(files, {**_node(), "tls": {**_tls(), **change}}), {})
    assert [problem.field for problem in caught.value.problems] == [field.removesuffix(": ")]
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("FLINTLOCK_NODE__RAFT__LISTEN", "x", "raft.listen: must be HOST:PORT"),
        ("FLINTLOCK_NODE__NOD", "x", "nod: is not a known setting"),
        ("FLINTLOCK_NODE__NODE__X", "x", "node is no group of settings"),
        ("FLINTLOCK_NODE__FSYNC", "[", "fsync: line 1"),
    ],
)
def test_bad_variable_is_named(files: Path, variable: str, value: str, expected: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_node(_write(files, _node()), {variable: value})
    assert expected in str(caught.value)
    assert variable in str(caught.value)
