"""A stream of grpcio that sends each message when the one before it is answered, without end: how it ends.

Runs in the environment ``grpcio``. Takes the address, the path of the call and a message in base64; prints how many messages
were sent and answered, and the status of the call.
"""

from __future__ import annotations

import base64
import json
import queue
import sys
from collections.abc import Iterator
from contextlib import suppress

import grpc  # type: ignore[import-untyped]


def main() -> None:
    address, method, encoded = sys.argv[1:]
    message, sent, answered = base64.b64decode(encoded), 0, 0
    answers: queue.Queue[bytes] = queue.Queue()

    def messages() -> Iterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield message
            answers.get()

    with grpc.insecure_channel(address) as channel:
        stream = channel.stream_stream(method)(messages())
        with suppress(grpc.RpcError):
            for answer in stream:
                answered += 1
                answers.put(answer)
        print(json.dumps({"sent": sent, "answered": answered, "code": stream.code().name}))
        # Whoever still waits for an answer is let go.
        answers.put(b"")


if __name__ == "__main__":
    main()
