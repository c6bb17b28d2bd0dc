"""Whether this machine can send a rate at all: a short load against an echo inside the generator. Next: ``run``."""

from __future__ import annotations

import json

from headgate.bench.loads import GeneratorSettings
from headgate.bench.native import Generator, answer_of
from headgate.bench.results import Answer

AHEAD = 1.25
"""The self-test's rate over the load's: a client that only just keeps up is late at times."""

SECONDS = 2.0
REPLY_BYTES = 256


def self_test(
    generator: Generator,
    settings: GeneratorSettings,
    rate: float,
    request_bytes: int,
    seconds: float = SECONDS,
) -> Answer:
    """The generator's answer for that rate; ``client.limited`` says whether it fell behind."""
    question = {
        "seconds": seconds,
        "rate": rate,
        "request_bytes": request_bytes,
        "reply_bytes": REPLY_BYTES,
        "threads": settings.threads,
        "cpus": None if settings.cpus is None else list(settings.cpus),
        "wait": settings.wait,
    }
    return answer_of(generator.selftest(json.dumps(question)))
