"""Ports that are held: workers can share them, strangers cannot, and no client waits there."""

import contextlib
import socket

import pytest

from servingd.config.server import ServerConfig
from servingd.errors import InvalidConfig
from servingd.supervisor.ports import ReservedPorts


def listen(port=0, *, reuse=False):
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET
    dual = family is socket.AF_INET6
    return socket.create_server(("", port), family=family, dualstack_ipv6=dual, reuse_port=reuse)


def free_port():
    with listen() as server:
        return server.getsockname()[1]


@pytest.fixture
def config():
    return ServerConfig(model_repository="/m", port=free_port(), rest_api_port=0, workers="2")


@pytest.fixture
def held(config):
    with contextlib.closing(ReservedPorts(config)) as ports:
        ports.open()
        yield config.port


@pytest.mark.parametrize("reuse", [False, True])
def test_a_busy_port_is_named(config, reuse):
    with (
        listen(config.port, reuse=reuse),
        pytest.raises(OSError, match=f"the gRPC port {config.port} cannot be used"),
    ):
        ReservedPorts(config).open()


def test_the_ports_before_a_busy_one_are_given_up():
    with listen() as busy:
        first = free_port()
        config = ServerConfig(
            model_repository="/m", port=first, rest_api_port=busy.getsockname()[1], workers="2"
        )
        with pytest.raises(OSError, match="the HTTP port"):
            ReservedPorts(config).open()
        listen(first).close()


def test_a_second_supervisor_cannot_hold_it(held, config):
    with pytest.raises(OSError, match=f"the gRPC port {held} cannot be used"):
        ReservedPorts(config).open()


def test_a_server_that_does_not_share_cannot_take_it(held):
    with pytest.raises(OSError, match="Address already in use"):
        listen(held)


def test_workers_share_it_and_get_all_connections(held):
    with listen(held, reuse=True) as one, listen(held, reuse=True) as other:
        one.settimeout(0)
        other.settimeout(0)
        clients = [socket.create_connection(("127.0.0.1", held), 5) for _ in range(40)]
        accepted = 0
        for server in (one, other):
            with contextlib.suppress(BlockingIOError):
                while True:
                    server.accept()[0].close()
                    accepted += 1
        for client in clients:
            client.close()
        assert accepted == 40


def test_without_a_worker_nobody_is_connected(held):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", held), 5)


def test_a_port_is_free_after_it_was_held(config):
    ports = ReservedPorts(config)
    ports.open()
    ports.close()
    listen(config.port).close()


def test_a_unix_socket_cannot_be_shared():
    config = ServerConfig(model_repository="/m", grpc_socket_path="/tmp/s", workers="2")
    with pytest.raises(InvalidConfig, match="a Unix socket has one"):
        ReservedPorts(config)


@pytest.mark.parametrize("reuse", [False, True])
def test_connections_of_an_earlier_server_that_wait_for_their_end_do_no_harm(config, reuse):
    with listen(config.port, reuse=reuse) as server:
        client = socket.create_connection(("127.0.0.1", config.port), 5)
        server.accept()[0].close()  # the first to close: it waits
        assert client.recv(1) == b""
        client.close()
    ports = ReservedPorts(config)
    ports.open()
    listen(config.port, reuse=True).close()
    ports.close()
