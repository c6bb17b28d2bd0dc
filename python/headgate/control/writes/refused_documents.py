"""Documents of files that could not be applied when the gateway started: listed among what was refused until they are mended.

Not here: the list (``registry.refusals``), when a file is read (gateway/first_loads.py). Next: ``service``.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from headgate.registry import Refusal, Refusals

_SOURCE = "documents"


class RefusedDocuments:
    """The documents among the refusals; thread-safe."""

    def __init__(self, refused: Refusals) -> None:
        """``refused`` takes them."""
        self._refused = refused

    def note(self, file: Path, endpoints: Collection[str], why: str) -> None:
        """A document of ``file`` could not be applied: until one of its endpoint is.

        Without ``endpoints`` nobody knows whose it is: until any document of the file is applied.
        """
        message = f"{file} was not applied: {'; '.join(line.strip() for line in why.splitlines())}"
        for endpoint in endpoints or (None,):
            refusal = Refusal(message, endpoint, folder=str(file))
            self._refused.put(_SOURCE, _key(endpoint, str(file)), refusal)

    def applied(self, endpoint: str, file: str) -> None:
        """A document of ``endpoint`` was applied from ``file``."""
        for key in (_key(endpoint, file), _key(None, file)):
            self._refused.drop(_SOURCE, key)


def _key(endpoint: str | None, file: str) -> tuple[str, ...]:
    return ("", file) if endpoint is None else (endpoint,)
