"""Whether this machine can send a rate at all: a short load against an echo inside the generator. Next: ``run``."""

from __future__ import annotations

import json
from dataclasses import dataclass

from headgate.bench.loads import GeneratorSettings
from headgate.bench.native import Generator, answer_of
from headgate.bench.results import Answer

AHEAD = 1.25
"""The self-test's rate over the load's: a client that only just keeps up is late at times."""

SECONDS = 2.0
REPLY_BYTES = 256


@dataclass(frozen=True)
class EchoLoad:
    """What is sent to the echo, which speaks the same protocol as the server will."""

    rate: float
    """Requests a second."""
    request_bytes: int
    protocol: str = "http"
    seconds: float = SECONDS


def self_test(
    generator: Generator,
    settings: GeneratorSettings,
    load: EchoLoad,
) -> Answer:
    """The generator's answer for that load; ``client.limited`` says whether it fell behind."""
    question = {
        "seconds": load.seconds,
        "rate": load.rate,
        "request_bytes": load.request_bytes,
        "protocol": load.protocol,
        "reply_bytes": REPLY_BYTES,
        "threads": settings.threads,
        "cpus": None if settings.cpus is None else list(settings.cpus),
        "wait": settings.wait,
    }
    return answer_of(generator.selftest(json.dumps(question)))
