"""A small server of the Open Inference Protocol in the test's own process: what a measurement asks before its load.

It is no Headgate unless it is told to say so. Not here: a server that takes a real load (``tests/e2e/test_bench_others.py``).
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIGITS = {
    "name": "digits",
    "versions": ["1"],
    "platform": "onnxruntime_onnx",
    "inputs": [{"name": "X", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "Y", "datatype": "FP32", "shape": [-1, 4]}],
}


@dataclass
class OipServer:
    """What it answers, and what it was asked."""

    name: str | None = "headgate"
    models: dict[str, dict[str, Any]] = field(default_factory=lambda: {"digits": DIGITS})
    ready_status: int = 200
    infer_status: int = 200
    takes_binary: bool = True
    """Whether it has the extension of binary tensors; without it, such a body is an error of the server's own."""
    version: str = "1"
    asked: list[tuple[str, str]] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    address: str = ""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.address}"

    def answer(self, method: str, path: str) -> tuple[int, Any]:
        """The status and the JSON of a call."""
        if path == "/v2/health/ready":
            return self.ready_status, {}
        if path == "/v2/health/live":
            return 200, {}
        if path == "/v2":
            return (404, {}) if self.name is None else (200, {"name": self.name, "version": "1.0"})
        if path == "/v2/models":
            return 200, {"models": [{"name": name} for name in self.models]}
        parts = path.split("/")
        model = self.models.get(parts[3]) if len(parts) > 3 else None
        if model is None:
            return 404, {"error": "no such model"}
        if method == "GET":
            return 200, model
        if self.infer_status != 200:
            return self.infer_status, {"error": "the model refuses"}
        return 200, {"model_name": model["name"], "model_version": self.version, "outputs": []}


@contextmanager
def serving(server: OipServer) -> Iterator[OipServer]:
    """The server on a free port of loopback while the block runs."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            server.bodies.append(self.rfile.read(int(self.headers.get("content-length", 0))))
            self._answer("POST")

        def _answer(self, method: str) -> None:
            server.asked.append((method, self.path))
            status, value = server.answer(method, self.path)
            if not server.takes_binary and "inference-header-content-length" in self.headers:
                status, value = 500, {"error": "no JSON"}
            body = json.dumps(value).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            if server.name == "headgate" and self.path.endswith("/infer"):
                self.send_header("x-headgate-version", server.version)
                self.send_header("server-timing", "run;dur=1, total;dur=2")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.address = f"127.0.0.1:{http.server_address[1]}"
        thread = threading.Thread(target=http.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
