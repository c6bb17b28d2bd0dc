"""Starts the gateway on the digits example and prints its addresses and three curl lines that work when pasted.

Not here: the gateway, which is ``headgate serve``; this only starts it and reads the line that it prints when ready.
Ctrl-C and SIGTERM reach the gateway, which drains; the exit code is the gateway's.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType

HERE = Path(__file__).resolve().parent


def curl_lines(addresses: dict[str, str], state: Path) -> list[str]:
    """A prediction, the same from version 2 by name, and the live traffic from the admin API."""
    body = shlex.quote(f"@{HERE / 'request.json'}")
    token = shlex.quote(str(state.resolve() / "admin-token"))
    predict = f"http://{addresses['http']}/v2/models/digits"
    return [
        f"curl -s -H 'x-user-id: ada' -d {body} {predict}/infer",
        f"curl -s -d {body} {predict}/versions/2/infer",
        f'curl -s -H "Authorization: Bearer $(cat {token})" http://{addresses["admin"]}/v1/endpoints/digits/traffic',
    ]


def announce(addresses: dict[str, str], state: Path) -> None:
    """Prints where the gateway listens and what to try."""
    print(f"predictions  http://{addresses['http']}/v2    grpc://{addresses['grpc']}")
    print(f"metrics      http://{addresses['observe']}/metrics")
    print(f"admin        http://{addresses['admin']}/v1    (token: {state.resolve() / 'admin-token'})")
    print("\nTry:")
    for line in curl_lines(addresses, state):
        print(f"  {line}")
    print("\nCtrl-C drains and stops.", flush=True)


def serve(state: Path, more: list[str]) -> int:
    """Runs the gateway until it ends; its exit code."""
    command = [
        sys.executable,
        "-m",
        "headgate",
        "serve",
        str(HERE / "digits.yaml"),
        "--state",
        str(state),
        *more,
    ]
    child: subprocess.Popen[str] | None = None

    def forward(signum: int, _frame: FrameType | None) -> None:
        # Ctrl-C reaches the whole foreground group, the gateway included; SIGTERM reaches only this process.
        if child is not None and signum == signal.SIGTERM:
            child.send_signal(signum)

    signal.signal(signal.SIGINT, forward)
    signal.signal(signal.SIGTERM, forward)
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    ready = child.stdout.readline()
    if ready:
        announce(json.loads(ready), state)
    return child.wait()


def main() -> None:
    """The command line: ``python serve.py --state DIR [options of headgate serve]``."""
    parser = argparse.ArgumentParser(description="Serves the digits example.")
    parser.add_argument(
        "--state", type=Path, default=Path(".state"), help="the state folder (default: .state)"
    )
    arguments, more = parser.parse_known_args()
    sys.exit(serve(arguments.state, more))


if __name__ == "__main__":
    main()
