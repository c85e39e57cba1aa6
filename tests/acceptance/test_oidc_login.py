"""A person logs in at a real OpenID Connect provider, with real nodes that trust it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import yaml
from support.issuer import oidc_server
from support.nodes import Nodes, started_nodes

from controlplane.cli.client import Client

BROWSER = """
import sys, requests
answer = requests.post(sys.argv[1], data={"sub": "alice"}, allow_redirects=False, timeout=20)
requests.get(answer.headers["Location"], timeout=20)
"""


class Person:
    """With a home of her own: a context and no token."""

    def __init__(self, nodes: Nodes, home: Path) -> None:
        home.mkdir()
        self.config = home / "config.yaml"
        context = {"endpoints": nodes.layout.endpoints, "ca_file": str(nodes.layout.ca_file)}
        self.config.write_text(yaml.safe_dump({"current": "prod", "contexts": {"prod": context}}))
        browser = home / "browser.py"
        browser.write_text(BROWSER)
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "FLINTLOCK_CONFIG": str(self.config),
            "BROWSER": f"{sys.executable} {browser} %s",
        }
        self.login_file = home / "logins" / "prod.json"

    def flintctl(self, *arguments: str, **environ: str) -> tuple[int, str, str]:
        command = [sys.executable, "-m", "controlplane.cli.main", *arguments]
        environment = {**self._environ, **environ}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert "Traceback" not in done.stderr, done.stderr
        return done.returncode, done.stdout, done.stderr

    def done(self, *arguments: str, **environ: str) -> str:
        code, out, err = self.flintctl(*arguments, **environ)
        assert code == 0, (arguments, out, err)
        return out


def test_a_person_logs_in_and_is_what_bindings_say(tmp_path: Path) -> None:
    with oidc_server({"alice": {"groups": ["web"]}}) as issuer:
        trusted = {"issuer": issuer, "audiences": ["flintctl"]}
        with started_nodes(tmp_path, nodes=1, hosts=1, more={"oidc": [trusted]}) as nodes:
            alice = Person(nodes, tmp_path / "home")
            # This provider wants a secret of every client, as Google does.
            (tmp_path / "secret").write_text("wanted\n")
            known_as = ("--client-id", "flintctl", "--client-secret-file", str(tmp_path / "secret"))
            assert alice.done("login", "--issuer", issuer, *known_as) == "Logged in as oidc:alice.\n"
            assert stat.S_IMODE(alice.login_file.stat().st_mode) == 0o600
            spec = {"role": "operator", "subjects": [{"kind": "group", "name": "oidc:web"}]}
            nodes.client("n1").request("PUT", "/rolebindings/web", body={"spec": spec})
            known = json.loads(alice.done("auth", "whoami", "-o", "json"))
            subjects = [f"{each['kind']}/{each['name']}" for each in known["subjects"]]
            assert (known["name"], subjects) == ("oidc:alice", ["user/oidc:alice", "group/oidc:web"])
            assert known["expires_at"] is not None

            secret = alice.done("api-token", "create", "laptop", "--group", "oidc:web", "--ttl", "1h").strip()
            client = Client(nodes.layout.endpoints, secret, nodes.layout.ca_file)
            assert client.get("/microvms").body["items"] == []
            refused = alice.flintctl("api-token", "create", "more", "--group", "oidc:admins")
            assert (refused[0], "not in group oidc:admins" in refused[2]) == (1, True), refused

            file = tmp_path / "id-token"
            file.write_text(json.loads(alice.login_file.read_text())["tokens"]["id_token"])
            assert alice.done("logout") == "Logged out.\n"
            assert not alice.login_file.exists()
            # As a pipeline has it.
            assert alice.flintctl("vm", "list", FLINTLOCK_OIDC_TOKEN_FILE=str(file))[0] == 0
