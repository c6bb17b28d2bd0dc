"""A command that only speaks to the admin API waits for none of a gateway's imports."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = [
    "httpx",
    "onnx",
    "onnxruntime",
    "pydantic",
    "rich",
    "ruamel",
    "sqlalchemy",
    "starlette",
    "uvicorn",
    "numpy",
]
GATEWAY = """
import json, sys, threading
from http.server import BaseHTTPRequestHandler, HTTPServer

class Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        answer = json.dumps({"endpoints": [], "revisions": [], "entries": [], "models": [], "refusals": [], "name": "me",
                             "role": "admin", "token": "kid"}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args): pass

server = HTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
from headgate.cli import main
try:
    main([*sys.argv[1:], "--admin", f"127.0.0.1:{server.server_port}"], prog_name="headgate")
except SystemExit as end:
    print(json.dumps([end.code, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


@pytest.mark.parametrize(
    "command",
    [["get"], ["history", "digits"], ["audit"], ["models"], ["whoami"], ["get", "-o", "json"]],
    ids=" ".join,
)
def test_it_imports_none_of_the_heavy_libraries(command: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", GATEWAY, *command],
        env={"HEADGATE_TOKEN": "headgate_kid_secret", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    code, modules = json.loads(done.stdout.splitlines()[-1])
    assert code == 0, done.stderr
    assert set(modules) & set(HEAVY) == set()
    assert "headgate" in modules


@pytest.mark.parametrize(
    "command",
    [
        "rollback",
        "traffic",
        "events",
        "token",
        "context",
        "drift",
        "explain",
        "delete",
        "rollout",
        "plans",
        "notify",
    ],
)
def test_the_module_of_a_client_command_imports_none_of_them(command: str) -> None:
    code = (
        "import json, sys\n"
        "from headgate.cli import main\n"
        "main.get_command(None, sys.argv[1])\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code, command], capture_output=True, text=True, check=True)
    assert set(json.loads(done.stdout)) & set(HEAVY) == set()
