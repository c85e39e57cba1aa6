"""In the settings of nodes and agents: the file and the dotted path of the setting."""

from __future__ import annotations

from acceptance.bad_input.cases import ABSENT, SettingsCase

CASES = [
    SettingsCase("nothing to listen on", "n1", {"http": ABSENT}, ("n1.yaml: http: is required",)),
    SettingsCase("an unknown setting", "n1", {"fysnc": "always"}, ("n1.yaml: fysnc: is not a known setting",)),
    SettingsCase("no port", "n1", {"http.listen": "127.0.0.1"}, ("n1.yaml: http.listen: must be HOST:PORT",)),
    SettingsCase("itself as a peer", "n1", {"raft.peers.n1": "127.0.0.1:1"}, ("raft.peers: lists this node (n1)",)),
    SettingsCase("peers that differ", "n1", {"gateway.peers.n3": ABSENT}, ("gateway.peers: must name the same", "n3")),
    SettingsCase(
        "elections without room", "n1", {"election": {"min_s": 1, "max_s": 1}}, ("n1.yaml: election: max_s (1.0) must",)
    ),
    SettingsCase(
        "resurrection before the end of a lease",
        "n1",
        {"lease": {"resurrect_after_s": 12}},
        ("n1.yaml: lease: resurrect_after_s: a host could still run", "(1 + 0.1) x (10 + 3) = 14.3 s > 12 s"),
    ),
    SettingsCase("no tokens", "n1", {"tokens_file": "/none.json"}, ("tokens_file: /none.json does not exist",)),
    SettingsCase(
        "a place for backups that is none",
        "n1",
        {"backup": {"store": "ftp://x"}},
        ("n1.yaml: backup.store: must be a directory or s3://BUCKET/PREFIX (found 'ftp://x')",),
    ),
    SettingsCase("backups without a pause", "n1", {"backup": {"store": "b", "every_s": 1}}, ("backup.every_s: ", "5")),
    SettingsCase(
        "another node's certificate",
        "n1",
        {"tls.certificate": "pki/n2/n2.crt", "tls.key": "pki/n2/n2.key"},
        ("n1.yaml: tls.certificate: ", "n2.crt: the certificate belongs to node n2 of cluster dev-", "not to node n1"),
    ),
    SettingsCase(
        "a wrong variable",
        "n1",
        {},
        ("n1.yaml: fsync: ", "found 'sometimes'", "FLINTLOCK_NODE__FSYNC"),
        {"FLINTLOCK_NODE__FSYNC": "sometimes"},
    ),
    SettingsCase("no driver", "h1", {"drivers": []}, ("h1.yaml: drivers: list should have at least 1 item",)),
    SettingsCase("an unknown driver", "h1", {"drivers": [{"kind": "xen"}]}, ("h1.yaml: drivers.0: ", "'xen'")),
    SettingsCase("no CPU", "h1", {"capacity.vcpu": 0}, ("h1.yaml: capacity.vcpu: ", "(found 0)")),
    SettingsCase(
        "a setting of another driver",
        "h1",
        {"drivers": [{"kind": "simulated", "images_dir": "/x"}]},
        ("h1.yaml: drivers.0.images_dir: is not a known setting",),
    ),
    SettingsCase("a bad name of a host", "h1", {"host": "H_1"}, ("h1.yaml: host: 'H_1' must be lower-case letters",)),
]
