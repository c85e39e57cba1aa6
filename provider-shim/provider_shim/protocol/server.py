"""The plugin server: handshake, socket, and the calls.

The handshake goes out as soon as the socket is there: what answers the calls (the messages, the framework, the
resources) is imported behind it, while Terraform connects, and a call that comes earlier waits for it.

Built on tfprovider's level-1 server (controller, health, watching the parent), with these differences, each for a
reason (docs/adr/0020): a unix socket in a directory only we can enter, since gRPC cannot verify Terraform's client
certificate; a certificate only when Terraform asks for one, and without base64 padding, which go-plugin refuses; an
EC key, which is made in a millisecond; 64 threads; 256 MB messages; SIGINT left to Terraform, SIGTERM a clean end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import FrameType
from typing import TYPE_CHECKING, Any

import grpc
from hc_go_plugin_server import grpc_controller_pb2_grpc
from hc_go_plugin_server.health_servicer import _configure_health_server  # pyright: ignore[reportPrivateUsage, reportUnknownVariableType] # tfprovider's own wiring
from tfprovider.level1.rpc_plugin import SyncRPCPluginServer

from provider_shim.log import log
from provider_shim.protocol.socket_dir import SocketDirectory

if TYPE_CHECKING:
    from provider_shim.framework.provider import Provider

COOKIE_NAME = "TF_PLUGIN_MAGIC_COOKIE"
COOKIE_VALUE = "d602bf8f470bc67ca7faa0386276bbdd4330efaf76d1a219cb4d6991ca9872b2"
THREADS = 64
MAX_MESSAGE_BYTES = 256 * 1024 * 1024
_CORE_PROTOCOL = 1
_PLUGIN_PROTOCOL = 6


class _Calls(grpc.GenericRpcHandler):
    """The calls of `tfplugin6.Provider`, by their full names, once they are there."""

    def __init__(self, table: Future[Mapping[str, Any]]) -> None:
        super().__init__()
        self._table = table

    def service(self, handler_call_details: Any) -> Any:
        return self._table.result().get(handler_call_details.method)


class PluginServer(SyncRPCPluginServer):
    """Serves one provider to the Terraform that started this process."""

    def __init__(self, load: Callable[[], Provider], *, with_certificate: bool) -> None:  # pyright: ignore[reportMissingSuperCall] # it would open a TCP port with an RSA key
        """`load` makes the provider; it is called after the handshake."""
        self._load = load
        self._provider: Provider | None = None
        self._calls: Future[Mapping[str, Any]] = Future()
        self._directory = SocketDirectory()
        size = MAX_MESSAGE_BYTES
        server: Any = grpc.server(
            ThreadPoolExecutor(max_workers=THREADS, thread_name_prefix="call"),
            options=[("grpc.max_receive_message_length", size), ("grpc.max_send_message_length", size)],
        )
        self.server = server
        server.add_generic_rpc_handlers((_Calls(self._calls),))
        controller = SyncRPCPluginServer._controller_servicer_factory(server)  # pyright: ignore[reportPrivateUsage, reportUnknownMemberType, reportUnknownVariableType]
        grpc_controller_pb2_grpc.add_GRPCControllerServicer_to_server(controller, server)  # pyright: ignore[reportUnknownMemberType]
        _configure_health_server(server)
        address = f"unix:{self._directory.socket}"
        self.cert_base64 = ""
        if with_certificate:
            # Late: a Terraform without TLS needs none of it.
            from provider_shim.protocol.certificate import make_certificate

            made = make_certificate()
            self.cert_base64 = b64encode(made.der).decode("ascii").rstrip("=")
            server.add_secure_port(address, grpc.ssl_server_credentials([(made.key_pem, made.certificate_pem)]))
        else:
            server.add_insecure_port(address)

    def handshake_line(self) -> str:
        return f"{_CORE_PROTOCOL}|{_PLUGIN_PROTOCOL}|unix|{self._directory.socket}|grpc|{self.cert_base64}"

    def prepare(self) -> None:
        """Make the provider; from then on its calls are answered."""
        try:
            from provider_shim.protocol.calls import calls_of  # late: see above

            self._provider = self._load()
            self._calls.set_result(calls_of(self._provider))
        except BaseException as problem:
            self._calls.set_exception(problem)
            raise

    def run(self) -> None:
        """Serve until Terraform says to stop, dies, or sends SIGTERM."""
        parent = os.getppid()
        self.server.start()
        sys.stdout.write(self.handshake_line() + "\n")
        sys.stdout.flush()
        try:
            self.prepare()
            # True means the second passed with the server still up. A killed Terraform leaves us another parent.
            while self.server.wait_for_termination(1) and os.getppid() == parent:
                pass
        finally:
            self._cancel()
            self.server.stop(0)
            self.remove_socket()

    def remove_socket(self) -> None:
        self._directory.remove()

    def stop(self) -> None:
        self._cancel()
        self.server.stop(2)

    def _cancel(self) -> None:
        if self._provider is not None:
            self._provider.stop()


def serve(load: Callable[[], Provider]) -> None:
    """The whole life of a provider process; `load` makes the provider."""
    server = PluginServer(load, with_certificate=bool(os.environ.get("PLUGIN_CLIENT_CERT")))

    def terminate(_signal: int, _frame: FrameType | None) -> None:
        # Not from here: the handler may have interrupted the main thread while it holds the server's lock.
        threading.Thread(target=server.stop, name="terminate").start()

    signal.signal(signal.SIGTERM, terminate)
    # Ctrl-C reaches the whole process group; Terraform decides what it means and calls StopProvider.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    log("debug", "provider is serving", pid=os.getpid())
    server.run()


def started_by_terraform() -> bool:
    return os.environ.get(COOKIE_NAME) == COOKIE_VALUE
