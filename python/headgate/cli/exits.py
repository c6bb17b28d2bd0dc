"""How a command ends: the exit codes, and an error said once, in words, on stderr.

No command exits in another way. Next: session.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn

import click

from headgate.cli.output import words
from headgate.cli.text import escape
from headgate.errors import HeadgateError

EXIT_NO = 1
EXIT_USAGE = 2
EXIT_TRY_AGAIN = 3
EXIT_NOT_THERE = 4
EXIT_REFUSED = 5
EXIT_NOT_ALLOWED = 6

INTERRUPTED = 130
"""As the shell says it of a program that a signal ended."""

MEANINGS = {
    0: "done",
    EXIT_NO: "a check said no: `--check`, `doctor`; a replay that was cancelled; an objective of `bench` that was missed; "
    "a rollout that was watched and ended without a promotion; a webhook that did not take a test message",
    EXIT_USAGE: "wrong usage or document",
    EXIT_TRY_AGAIN: "could not reach the gateway, or try again: draining, overloaded, the store failed; a measurement that decided nothing",
    EXIT_NOT_THERE: "no such endpoint, version, revision, operation, token or context",
    EXIT_REFUSED: "refused as things are (frozen, in use, a model that does not load), or changed meanwhile by another call",
    EXIT_NOT_ALLOWED: "not allowed: no token, one that is not known or too weak, or one that is not sent there",
}
"""What each exit code says, for help and docs."""

_EXIT_BY_CODE = {
    "not_found": EXIT_NOT_THERE,
    "model_not_found": EXIT_NOT_THERE,
    "version_not_found": EXIT_NOT_THERE,
    "conflict": EXIT_REFUSED,
    "revision_conflict": EXIT_REFUSED,
    "model_load_failed": EXIT_REFUSED,
    "unauthenticated": EXIT_NOT_ALLOWED,
    "permission_denied": EXIT_NOT_ALLOWED,
    "unreachable": EXIT_TRY_AGAIN,
    "rate_limited": EXIT_TRY_AGAIN,
    "overloaded": EXIT_TRY_AGAIN,
    "model_not_ready": EXIT_TRY_AGAIN,
    "draining": EXIT_TRY_AGAIN,
    "storage_failed": EXIT_TRY_AGAIN,
    "deadline_exceeded": EXIT_TRY_AGAIN,
    "backend_failed": EXIT_TRY_AGAIN,
    "internal": EXIT_TRY_AGAIN,
}


class UnreachableError(HeadgateError):
    """No gateway answers at the admin address, or what answers is not one."""

    code: ClassVar[str] = "unreachable"


def exit_code(error: HeadgateError) -> int:
    """The code of its kind; what is not listed has to be written differently by the caller."""
    return _EXIT_BY_CODE.get(error.code, EXIT_USAGE)


@contextmanager
def failures(hint: Callable[[HeadgateError], str | None] = lambda _: None) -> Iterator[None]:
    """Turns every error into words on stderr and an exit code; ``hint`` may add a line on what was meant."""
    try:
        yield
    except HeadgateError as error:
        fail(error, hint=hint(error))
    except KeyboardInterrupt:
        # As the shell says it of a program that a signal ended; nothing more needs to be said.
        sys.exit(INTERRUPTED)
    except (click.ClickException, click.Abort, OSError):
        raise
    except Exception as error:
        if os.environ.get("HEADGATE_TRACEBACK"):
            raise
        words(
            f"headgate: a defect of the command line: {type(error).__name__}: {error}; HEADGATE_TRACEBACK=1 shows where"
        )
        sys.exit(EXIT_TRY_AGAIN)


def fail(error: HeadgateError, *, conflict: int = EXIT_REFUSED, hint: str | None = None) -> NoReturn:
    """Says the error and what it lists, each once, then exits with the code of its kind.

    ``conflict`` is the exit code of a conflict: for a gateway that cannot start because another one runs it is 3.
    """
    first, *more = error.message.removeprefix("headgate: ").rstrip().splitlines() or [error.code]
    words(f"headgate: {first}")
    for line in more:
        words(f"  {line.strip()}")
    for fault in error.detail.get("faults", []):
        line = _fault(fault)
        if line not in error.message:
            words(f"  {line}")
    if error.code == "revision_conflict":
        words("  somebody else changed it meanwhile; look with `headgate get`, then run the command again")
    if hint:
        words(f"  {hint}")
    sys.exit(conflict if error.code == "conflict" else exit_code(error))


def _fault(fault: Any) -> str:
    if not isinstance(fault, dict):
        return escape(str(fault))
    message = f"{fault['path']}: {fault['message']}" if fault.get("path") else str(fault.get("message", ""))
    return escape(message)
