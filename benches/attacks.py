"""What clients, models and documents do to a gateway at their worst, each as a block that goes on until it is left.

For the bench beside it (``isolation``) and for ``tests/e2e/test_isolation.py``. Everything is bounded and on loopback.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto, helper

MODELS = Path(__file__).resolve().parents[1] / "tests" / "models"
ENDLESS = 2**62
"""Turns of a loop that nobody waits for."""
GIANT = 2_000_000
"""Elements of a giant answer."""
CONNECT_SECONDS = 5.0
ASK_SECONDS = 30.0

DOCUMENTS = {
    "endless-inline": "{model: 'file:models/endless/1', run: {placement: inline}}",
    "endless-pool": "{model: 'file:models/endless/1', run: {placement: pool}}",
    "giant": "{model: 'file:models/giant/1', run: {placement: pool}}",
    "table": "{model: 'file:models/table/1'}",
}
"""The endpoints that are attacked, with their only version."""


def giant() -> onnx.ModelProto:
    """size INT64 [1] -> y FP32 [size], zeros: a small request with a large answer."""
    graph = helper.make_graph(
        [helper.make_node("ConstantOfShape", ["size"], ["y"])],
        "giant",
        [helper.make_tensor_value_info("size", TensorProto.INT64, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def prepare(folder: Path) -> list[Path]:
    """Puts the models below ``folder/models`` and the documents beside them; the documents."""
    for name in ("endless", "hanging", "table", "giant"):
        (folder / "models" / name / "1").mkdir(parents=True)
    for name, model in (("endless", "count"), ("hanging", "count"), ("table", "gather")):
        shutil.copyfile(MODELS / f"{model}.onnx", folder / "models" / name / "1" / "model.onnx")
    onnx.save(giant(), folder / "models" / "giant" / "1" / "model.onnx")
    # Its warm-up never ends, so that its load does not.
    (folder / "models" / "hanging" / "1" / "warmup.json").write_text(json.dumps(counting(ENDLESS)))
    documents = []
    for name, version in DOCUMENTS.items():
        document = folder / f"{name}.yaml"
        document.write_text(
            f"apiVersion: headgate/v1\nkind: Endpoint\nname: {name}\nversions: {{v1: {version}}}\ntraffic: {{champion: v1}}\n"
        )
        documents.append(document)
    return documents


def counting(turns: int) -> dict[str, Any]:
    """A request for the model ``count``: so many turns."""
    return {
        "inputs": [
            {"name": "x", "shape": [1], "datatype": "FP32", "data": [0.5]},
            {"name": "times", "shape": [1], "datatype": "INT64", "data": [turns]},
        ]
    }


def one_input(name: str, values: Sequence[int]) -> dict[str, Any]:
    """A request with one INT64 tensor."""
    tensor = {"name": name, "shape": [len(values)], "datatype": "INT64", "data": list(values)}
    return {"inputs": [tensor]}


def message(endpoint: str, body: dict[str, Any]) -> bytes:
    """A request's bytes."""
    content = json.dumps(body).encode()
    head = f"POST /v2/models/{endpoint}/infer HTTP/1.1\r\nHost: gateway\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def connect(address: str) -> socket.socket:
    """A connection to ``host:port``."""
    host, port = address.rsplit(":", 1)
    return socket.create_connection((host, int(port)), CONNECT_SECONDS)


@contextlib.contextmanager
def endless(address: str, endpoint: str, clients: int = 4) -> Iterator[None]:
    """Each client waits for a run that would never end, and leaves at the end of the block."""
    with contextlib.ExitStack() as sockets:
        for _ in range(clients):
            sock = sockets.enter_context(connect(address))
            sock.sendall(message(endpoint, counting(ENDLESS)))
        yield


@contextlib.contextmanager
def repeated(clients: int, ask: Callable[[], None]) -> Iterator[None]:
    """Each of the clients asks again and again."""
    over = threading.Event()

    def client() -> None:
        while not over.is_set():
            # What the gateway closes or refuses is tried again: that is what makes it an attack.
            with contextlib.suppress(OSError, http.client.HTTPException):
                ask()

    threads = [threading.Thread(target=client, daemon=True) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join(ASK_SECONDS)


def giant_answers(address: str, clients: int = 2) -> contextlib.AbstractContextManager[None]:
    """Clients that have giant answers written, and read them in pieces."""
    request = message("giant", one_input("size", [GIANT]))

    def ask() -> None:
        with connect(address) as sock:
            sock.settimeout(ASK_SECONDS)
            sock.sendall(request)
            read = 0
            while read < 2 * GIANT and (piece := sock.recv(1 << 16)):
                read += len(piece)

    return repeated(clients, ask)


def asking(address: str, endpoint: str, body: dict[str, Any]) -> Callable[[], None]:
    """What asks an endpoint a hundred times over one connection."""
    request = message(endpoint, body)

    def ask() -> None:
        with connect(address) as sock:
            sock.settimeout(ASK_SECONDS)
            for _ in range(100):
                sock.sendall(request)
                if not sock.recv(1 << 16):
                    return

    return ask


def bad_requests(address: str, clients: int = 2) -> contextlib.AbstractContextManager[None]:
    """Clients whose requests are all at fault: an index out of range."""
    return repeated(clients, asking(address, "table", one_input("index", [99])))


def hanging_load(admin: str, token: str) -> contextlib.AbstractContextManager[None]:
    """An endpoint whose load never ends is applied, and removed at the end of the block."""
    document = json.dumps(
        {
            "apiVersion": "headgate/v1",
            "kind": "Endpoint",
            "name": "hanging",
            "versions": {"v1": "file:models/hanging/1"},
            "traffic": {"champion": "v1"},
        }
    )

    def call(method: str, body: str | None, headers: dict[str, str]) -> None:
        host, port = admin.rsplit(":", 1)
        connection = http.client.HTTPConnection(host, int(port), timeout=ASK_SECONDS)
        try:
            authorised = headers | {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            connection.request(method, "/v1/endpoints/hanging", body, authorised)
            connection.getresponse().read()
        finally:
            connection.close()

    @contextlib.contextmanager
    def block() -> Iterator[None]:
        apply = threading.Thread(
            target=_quietly, args=(call, "PUT", document, {"If-None-Match": "*"}), daemon=True
        )
        apply.start()
        try:
            yield
        finally:
            _quietly(call, "DELETE", json.dumps({"reason": "over"}), {"If-Match": "*"})
            apply.join(ASK_SECONDS)

    return block()


def _quietly(call: Callable[..., None], *arguments: Any) -> None:
    with contextlib.suppress(OSError, http.client.HTTPException):
        call(*arguments)


@contextlib.contextmanager
def idle_connections(addresses: Sequence[str], count: int = 3_000) -> Iterator[None]:
    """So many connections to each address that send nothing; those that are closed or refused stay so."""
    with contextlib.ExitStack() as sockets:
        for address in addresses:
            for _ in range(count):
                with contextlib.suppress(OSError):
                    sockets.enter_context(connect(address))
        yield
