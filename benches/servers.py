"""The servers that are compared: how each is started on one core, and how it is ended.

Not here: sending requests and counting (``measure``). Every server answers the same request on the same path.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from headgate import runtime_library

ROOT = Path(__file__).resolve().parent.parent
DIGITS = ROOT / "examples" / "digits"
REQUEST = DIGITS / "request.json"
MODEL = DIGITS / "models" / "digits" / "1" / "model.onnx"
PEERS = ROOT / "target" / "peers" / "release"
"""Where the peers that are written in Rust are built."""
BARE_LOOP = PEERS / "bare_loop"
PATH = "/v2/models/digits/infer"
START_SECONDS = 60.0

DOCUMENT = """
apiVersion: headgate/v1
kind: Endpoint
name: digits
versions:
  "1": "file:models/digits/1"
  constant: {constant: {label: %(label)s, probabilities: %(probabilities)s}}
traffic:
  champion: "1"
  weights: {constant: %(constant)s}
drift:
  baseline: "file:baseline/digits.npz"
"""


@dataclass
class Server:
    """One running server: its name in the tables, its process, where it answers."""

    name: str
    process: subprocess.Popen[str]
    address: str
    grpc: str = ""
    """Where it answers over gRPC, if it does and the bench asks."""

    @property
    def url(self) -> str:
        """The URL that every request goes to."""
        return f"http://{self.address}{PATH}"

    def cpu_seconds(self) -> float:
        """CPU time that the process and all its threads have used, user and system."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def ask(self) -> bytes:
        """The answer to one request."""
        asked = urllib.request.Request(self.url, REQUEST.read_bytes(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            content: bytes = answer.read()
        return content

    def stop(self) -> None:
        """Ends the process that was started, by its id."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass(frozen=True)
class Launcher:
    """Starts servers on one core; their files go below ``folder``."""

    core: int
    folder: Path
    program: tuple[str, ...] = ("-m", "headgate")
    """What Python runs as ``headgate``."""

    def run(self, command: list[str], log: str) -> subprocess.Popen[str]:
        """A process pinned to the core, its stderr in a file."""
        with (self.folder / f"{log}.log").open("w") as stderr:
            return subprocess.Popen(
                ["taskset", "--cpu-list", str(self.core), *command],
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=os.environ | {"ORT_DISABLE_TELEMETRY": "1"},
                cwd=self.folder,
            )

    def nginx(self, body: str) -> Server:
        """nginx with one worker that returns a fixed body: the limit of what a server on this machine can do."""
        port = free_port()
        config = self.folder / "nginx.conf"
        config.write_text(nginx_config(self.folder, port, body))
        process = self.run(["nginx", "-p", str(self.folder), "-c", str(config)], "nginx")
        return ready(Server("nginx, fixed body", process, f"127.0.0.1:{port}"))

    def bare(self, body: str, *, model: bool) -> Server:
        """An epoll loop that returns a fixed body, with one run of the model for each request or without."""
        answer = self.folder / "answer.json"
        answer.write_text(body)
        command = [str(BARE_LOOP), str(answer)]
        if model:
            command += [str(runtime_library.find().path), str(MODEL)]
        process = self.run(command, f"bare-{model}")
        assert process.stdout is not None
        name = "bare epoll + C API" if model else "bare epoll"
        return ready(Server(name, process, process.stdout.readline().strip()))

    def starlette(self) -> Server:
        """uvicorn, Starlette and onnxruntime, as written by hand."""
        port = free_port()
        script = ROOT / "benches" / "peers" / "starlette_server.py"
        process = self.run(
            [sys.executable, str(script), "--model", str(MODEL), "--port", str(port)], "starlette"
        )
        return ready(Server("uvicorn + Starlette", process, f"127.0.0.1:{port}"))

    def headgate(self, name: str, *, constant: str, sketches: str, answer: dict[str, list[float]]) -> Server:
        """Headgate with one IO thread; ``constant`` is the weight of the constant version, ``sketches`` on or off."""
        label = name.replace(" ", "-").replace(",", "")
        document = self.folder / f"{label}.yaml"
        values = {"label": int(answer["label"][0]), "probabilities": json.dumps(answer["probabilities"])}
        document.write_text(DOCUMENT % (values | {"constant": constant}))
        process, addresses = self.serve_all(document, label, "--root", str(DIGITS), "--sketches", sketches)
        return ready(Server(name, process, addresses["http"], addresses["grpc"]))

    def serve(self, document: Path, label: str, *options: str) -> tuple[subprocess.Popen[str], str]:
        """Headgate with one IO thread and its data port's address; ends the bench when it does not start."""
        process, addresses = self.serve_all(document, label, *options)
        return process, addresses["http"]

    def serve_all(
        self, document: Path, label: str, *options: str
    ) -> tuple[subprocess.Popen[str], dict[str, str]]:
        """As :meth:`serve`, with the addresses of all ports by their names."""
        command = [sys.executable, *self.program, "serve", str(document), "--io-threads", "1", *options]
        command += ["--state", str(self.folder / label)]
        for port in ("http", "grpc", "observe", "admin"):
            command += [f"--{port}", "127.0.0.1:0"]
        process = self.run(command, label)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            process.wait(30)
            raise SystemExit(f"{label} did not start:\n{(self.folder / f'{label}.log').read_text()[-2000:]}")
        addresses: dict[str, str] = json.loads(line)
        return process, addresses


def nginx_config(folder: Path, port: int, body: str) -> str:
    """One process in the foreground that answers every request with ``body``; all its files are below ``folder``."""
    temporary = "\n".join(
        f"  {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return f"""
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log crit;
events {{ worker_connections 1024; }}
http {{
{temporary}
  access_log off;
  keepalive_requests 1000000000;
  default_type application/json;
  server {{
    listen 127.0.0.1:{port};
    location / {{ return 200 '{body}'; }}
  }}
}}
"""


def free_port() -> int:
    """A TCP port of loopback that nothing listens on; for servers that cannot choose one themselves."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def ready(server: Server) -> Server:
    """The server once it answers; ends it and gives up when it does not within a minute."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            server.ask()
            return server
        except OSError as error:
            if server.process.poll() is not None or time.monotonic() > deadline:
                server.stop()
                raise SystemExit(f"{server.name} does not answer at {server.url}: {error}") from error
            time.sleep(0.05)


def answer_of(content: bytes) -> dict[str, list[float]]:
    """The values by output of an answer."""
    return {output["name"]: output["data"] for output in json.loads(content)["outputs"]}


def start_all(launcher: Launcher, wanted: Callable[[str], bool]) -> list[Server]:
    """All servers whose name is wanted, each having given the right answer once."""
    servers: list[Server] = []
    try:
        # The hand-written server tells the right answer, which the fixed and the constant ones then repeat.
        teacher = launcher.starlette()
        servers.append(teacher)
        body = teacher.ask().decode()
        answer = answer_of(body.encode())
        servers.insert(0, launcher.nginx(body))
        servers += [launcher.bare(body, model=model) for model in (False, True)]
        for name, constant, sketches in (
            ("Headgate, constant", "100%", "on"),
            ("Headgate, sketches off", "0%", "off"),
            ("Headgate, sketches on", "0%", "on"),
        ):
            if wanted(name):
                servers.append(launcher.headgate(name, constant=constant, sketches=sketches, answer=answer))
        for server in servers:
            check(server, answer)
    except BaseException:
        for server in servers:
            server.stop()
        raise
    return servers


def check(server: Server, answer: dict[str, list[float]]) -> None:
    """Refuses to measure a server that answers something else."""
    given = answer_of(server.ask())
    same = given["label"] == answer["label"] and all(
        abs(have - want) < 1e-5
        for have, want in zip(given["probabilities"], answer["probabilities"], strict=True)
    )
    if not same:
        raise SystemExit(f"{server.name} answers {given}, not {answer}")
