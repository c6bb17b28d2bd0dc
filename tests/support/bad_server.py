"""A server of the Open Inference Protocol that takes one request well and then goes wrong in one way."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal

Fault = Literal["hangs", "garbage", "closes"]

_METADATA = {
    "name": "digits",
    "versions": ["1"],
    "platform": "other",
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [],
}


@dataclass
class _Server:
    fault: Fault
    listener: socket.socket
    taken: int = 0
    sockets: list[socket.socket] = field(default_factory=list)

    def accept(self) -> None:
        """Until the listener is shut down."""
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.sockets.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        # A client that leaves in the middle is no fault of the test.
        with suppress(OSError), connection, connection.makefile("rb") as lines:
            while first := lines.readline():
                length = 0
                while (line := lines.readline()) not in (b"\r\n", b""):
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                lines.read(length)
                if first.startswith(b"POST") and not self._post(connection):
                    return
                if first.startswith(b"GET"):
                    _reply(connection, _METADATA)

    def _post(self, connection: socket.socket) -> bool:
        """Whether the connection stays."""
        self.taken += 1
        if self.taken == 1:
            _reply(connection, {"model_name": "digits", "model_version": "1", "outputs": []})
        elif self.fault == "garbage":
            connection.sendall(b"\x00\x01no HTTP at all\r\n\r\n")
            return False
        return self.taken == 1 or self.fault == "hangs"


def _reply(connection: socket.socket, value: object) -> None:
    body = json.dumps(value).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)


@contextmanager
def going_wrong(fault: Fault) -> Iterator[str]:
    """Its URL, on a port of the system's choice, while the block runs."""
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        server = _Server(fault, listener)
        thread = threading.Thread(target=server.accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()
            for one in server.sockets:
                one.close()
