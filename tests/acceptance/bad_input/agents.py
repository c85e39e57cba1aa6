"""Agents that are started wrongly, beside a cluster that runs: what they say, as an operator finds it in their log."""

from __future__ import annotations

from acceptance.bad_input.cases import AgentCase

CASES = [
    AgentCase(
        "the certificate of another host",
        (
            "tls.certificate: ",
            "h2.crt: the certificate belongs to host h2 of cluster dev-",
            "not to host h1 of cluster dev-",
        ),
        {"tls.certificate": "pki/h2/h2.crt", "tls.key": "pki/h2/h2.key"},
    ),
    AgentCase(
        "a node's certificate",
        (
            "tls.certificate: ",
            "n1.crt: the certificate belongs to node n1 of cluster dev-",
            "not to host h1 of cluster dev-",
        ),
        {"tls.certificate": "pki/n1/n1.crt", "tls.key": "pki/n1/n1.key"},
    ),
    AgentCase(
        "a certificate of another authority",
        ("tls.certificate: ", "h1.crt was not issued by the authority in", "ca.crt"),
        {"tls.certificate": "OTHER/h1.crt", "tls.key": "OTHER/h1.key"},
    ),
    AgentCase("another certificate's key", ("tls.key: ", "h2.key is not the key of"), {"tls.key": "pki/h2/h2.key"}),
    AgentCase(
        "a node of another authority",
        ("CERTIFICATE_VERIFY_FAILED",),
        {"tls.ca": "OTHER/ca.crt", "tls.certificate": "OTHER/h1.crt", "tls.key": "OTHER/h1.key"},
        ends=False,
    ),
    AgentCase(
        "another cluster",
        ("tls.certificate: ", "belongs to host h1 of cluster dev-", "not to host h1 of cluster elsewhere"),
        {"cluster_id": "elsewhere"},
    ),
    AgentCase(
        "a state directory of another cluster",
        ("hello.cluster_id: the host belongs to 'elsewhere', this is 'dev-",),
        {"cluster_id": None},
        {"cluster-id": "elsewhere\n"},
        ends=False,
    ),
    AgentCase(
        "a second agent on a state directory",
        ("state_dir: ", "is in use by another agent (pid "),
        {"state_dir": "h1"},
    ),
    AgentCase(
        "a damaged journal",
        ("journal/01JABC.json: the journal's record is damaged", "restore it, or move it away"),
        files={"journal/01JABC.json": '{"v": 1'},
    ),
    AgentCase(
        "a driver's file that is damaged",
        ("driver simulated: StateUnavailable: cannot use", "simulated.db: file is not a database"),
        files={"simulated/simulated.db": "this is no database, and long enough to be one" * 9},
    ),
]
