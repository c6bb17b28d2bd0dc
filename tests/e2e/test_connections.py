"""Ports full of clients that do nothing good, and few descriptors: others are served, and a rollback gets in.

Not here: which connection makes room, and when (``tests/unit/gateway/test_connections``, ``rust/server/tests/gateway/crowd.rs``).
"""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Iterator

import httpx
import pytest

from support.client import Connection
from support.gateway import GatewayProcess
from support.models import place, scale
from support.tools import need_native

DOCUMENT = """\
apiVersion: headgate/v1
kind: Endpoint
name: double
versions: {"1": "file:models/double/1", "2": "file:models/double/2"}
traffic: {champion: "1", weights: {"2": 50%}}
"""
ROW = {"inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
CLIENTS = 3_000
DESCRIPTORS = 1_024


@pytest.fixture
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayProcess]:
    need_native()
    folder = tmp_path_factory.mktemp("connections")
    for version, factor in (("1", 2.0), ("2", 3.0)):
        place(scale(factor), folder / "models", "double", version)
    (folder / "document.yaml").write_text(DOCUMENT)
    few = ["sh", "-c", f'ulimit -n {DESCRIPTORS}; exec "$@"', "sh"]
    arguments = [str(folder / "document.yaml"), "--root", str(folder)]
    with GatewayProcess(folder / "state", arguments, prefix=few) as started:
        yield started


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    """Descriptors for the clients."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * CLIENTS if hard == resource.RLIM_INFINITY else min(2 * CLIENTS, hard)
    if wanted < CLIENTS + 500:
        pytest.skip("the hard limit on open files is too low for the clients")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def crowd(stack: contextlib.ExitStack, address: str, send: bytes) -> None:
    host, port = address.rsplit(":", 1)
    for _ in range(CLIENTS):
        client = stack.enter_context(socket.create_connection((host, int(port)), timeout=30))
        # One that made room already says so here.
        with contextlib.suppress(ConnectionError):
            client.sendall(send)


SENT = {
    "nothing": b"",
    "half a head": b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Half",
    "half a body": b"POST /v1/endpoints/double:rollback HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 99\r\n\r\n{",
    "one request": b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
}


@pytest.mark.parametrize("send", SENT.values(), ids=SENT.keys())
@pytest.mark.parametrize("port", ["observe", "admin"])
def test_a_crowd_at_one_port_shuts_nobody_out(gateway: GatewayProcess, port: str, send: bytes) -> None:
    with contextlib.ExitStack() as stack:
        crowd(stack, gateway.addresses[port], send)
        with gateway.admin() as admin:
            assert admin.act("double", "rollback")["status"] == "applied"
        with Connection(gateway.http) as connection:
            assert connection.infer("double", ROW).status == 200
        assert gateway.observe("/readyz").status_code == 200
        closed = f'headgate_control_connections_closed_total{{listener="{port}",reason="crowded"}}'
        assert any(line.startswith(closed) for line in gateway.observe("/metrics").text.splitlines())
    assert httpx.get(f"http://{gateway.http}/v2/health/ready").status_code == 200


DATA_SENT = {
    "nothing": b"",
    "half a head": b"POST / HTTP/1.1\r\nHost: here\r\nX-Half",
    "half a body": b"POST /v2/models/double/infer HTTP/1.1\r\nHost: here\r\nContent-Length: 99\r\n\r\n{",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("send", DATA_SENT.values(), ids=DATA_SENT.keys())
def test_a_crowd_at_the_data_port_shuts_nobody_out(gateway: GatewayProcess, send: bytes) -> None:
    with contextlib.ExitStack() as stack:
        crowd(stack, gateway.http, send)
        with Connection(gateway.http) as connection, Connection(gateway.grpc) as other:
            assert connection.infer("double", ROW).status == 200
            assert other.infer("double", ROW).status == 200
        with gateway.admin() as admin:
            assert admin.act("double", "rollback")["status"] == "applied"
        lines = dict(line.rsplit(" ", 1) for line in gateway.observe("/metrics").text.splitlines())
        assert float(lines["headgate_connections_crowded_total"]) > CLIENTS // 2
        assert float(lines["headgate_connections_refused_total"]) == 0
