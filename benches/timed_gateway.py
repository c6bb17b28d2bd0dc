"""``timed_gateway.py FILE serve ...``: a gateway that notes when it hands a revision to the data plane, and when that is on disk.

It is ``headgate serve`` with two functions wrapped. Each line of FILE is ``{"what", "revision", "from", "to"}`` in nanoseconds of the
monotonic clock, which all processes of the machine share. Not here: what is made of it (``rollback_times``).
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from headgate import __main__ as program
from headgate.control.writes import data_plane
from headgate.store import Store


def timed(
    work: Callable[..., Any], what: str, revision: Callable[..., int], lines: Any
) -> Callable[..., Any]:
    """``work``, with a line for each of its calls that came to an end; ``revision`` reads the number from its arguments."""

    @wraps(work)
    def call(*arguments: Any, **named: Any) -> Any:
        begun = time.monotonic_ns()
        result = work(*arguments, **named)
        ended = time.monotonic_ns()
        line = {"what": what, "revision": revision(*arguments), "from": begun, "to": ended}
        # One write for each line: two threads do not mix theirs.
        lines.write((json.dumps(line) + "\n").encode())
        return result

    return call


def wrap(path: Path) -> None:
    """Wraps what hands over and what commits."""
    lines = path.open("ab", buffering=0)
    plain = data_plane.Native.__init__

    @wraps(plain)
    def begin(self: data_plane.Native, *arguments: Any) -> None:
        plain(self, *arguments)
        self.apply = timed(self.apply, "apply", lambda state: json.loads(state)["revision"], lines)

    setattr(data_plane.Native, "__init__", begin)  # noqa: B010 -- a type checker has no words for such a change
    committed = timed(Store.append_ended, "commit", lambda _store, _proposal, commit: commit.n, lines)
    setattr(Store, "append_ended", committed)  # noqa: B010


if __name__ == "__main__":
    wrap(Path(sys.argv[1]))
    sys.argv = ["headgate", *sys.argv[2:]]
    program.main()
