"""Watching a rollout: the view is read again with each event of the endpoint and each tick, and drawn anew on a terminal.

Where no terminal is, a line is printed for each change. Not here: how it is drawn (``rollout_view``). Next: event_stream.py.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from typing import Any, Protocol

import click

from headgate.cli import output
from headgate.cli.client import AdminClient, segment
from headgate.cli.event_stream import follow
from headgate.cli.exits import EXIT_TRY_AGAIN, exit_code
from headgate.cli.output import words
from headgate.cli.rollout_view import ENDED, gate_key, headline, rollout_view, step_words
from headgate.cli.session import Session
from headgate.cli.text import printable
from headgate.errors import HeadgateError

_HOME, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"


class Shown(Protocol):
    """Where a rollout is shown while it is watched."""

    def show(self, one: Any) -> None:
        """The rollout as it is now."""


def watch(session: Session, endpoint: str) -> str:
    """Shows the newest rollout of an endpoint until it has ended; its last phase. A gateway that restarts is waited for."""
    shown = _shown(session)
    with session.client() as client, session.client() as stream:
        one = rollout_of(client, endpoint)
        shown.show(one)
        if one["phase"] in ENDED:
            return str(one["phase"])
        for _ in follow(stream, endpoint, None, session.environment.timing.sleep, words, ticks=True):
            found = _read(client, endpoint)
            if found is not None:
                one = found
                shown.show(one)
            if one["phase"] in ENDED:
                break
    return str(one["phase"])


def rollout_of(client: AdminClient, endpoint: str) -> Any:
    """The newest rollout of an endpoint."""
    return client.get(f"/endpoints/{segment(endpoint)}/rollout").body


def _read(client: AdminClient, endpoint: str) -> Any | None:
    """None while the gateway cannot be reached or is not ready; that is said, and the next event or tick tries again."""
    try:
        return rollout_of(client, endpoint)
    except HeadgateError as error:
        if exit_code(error) != EXIT_TRY_AGAIN:
            raise
        words(f"headgate: {error.message}")
        return None


def _shown(session: Session) -> Shown:
    if not session.for_person:
        return _Records(session)
    return Screen(sys.stdout.write) if sys.stdout.isatty() else _Log()


class _Records:
    """For a program: the whole, each time that something differs."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._last: Any = None

    def show(self, one: Any) -> None:
        if one != self._last:
            output.show_next(self._session.form, one, rollout_view, lambda data: [data["phase"]])
        self._last = one


class _Log:
    """For a file: a line for each change of step, phase or verdict."""

    def __init__(self) -> None:
        self._last: tuple[object, ...] = ()
        self._begun = False

    def show(self, one: Any) -> None:
        now = change_of(one)
        if now == self._last:
            return
        self._last = now
        one = printable(one)
        if not self._begun:
            click.echo(headline(one))
            self._begun = True
        for line in log_lines(one):
            click.echo(line)


class Screen:
    """For a person: the view in the place of the one before, cut at the height of the terminal."""

    def __init__(self, write: Callable[[str], object]) -> None:
        """``write`` takes what goes to the terminal."""
        self._write = write
        click.clear()

    def show(self, one: Any) -> None:
        """Draws it over what is there."""
        height = shutil.get_terminal_size().lines - 1
        lines = rollout_view(printable(one))
        if len(lines) > height:
            lines = [
                *lines[: height - 1],
                f"... {len(lines) - height + 1} more lines: headgate rollout show {one['endpoint']}",
            ]
        drawn = "".join(f"{line}{_REST_OF_LINE}\n" for line in lines)
        self._write(f"{_HOME}{drawn}{_REST_OF_SCREEN}")
        sys.stdout.flush()


def change_of(one: Any) -> tuple[object, ...]:
    """What a line is printed for: phase, step, pause and verdicts."""
    step = None if one["step"] is None else one["step"]["index"]
    held = None if one["pause"] is None else one["pause"]["reason"]
    verdicts = tuple((gate_key(gate), gate["verdict"]) for gate in one["gates"])
    return one["id"], one["phase"], step, held, verdicts


def log_lines(one: Any) -> list[str]:
    """``r1 progressing  step 2 of 5: weight 5%, ...  error_rate pass``."""
    if one["end"] is not None:
        return [f"{one['id']} {one['phase']}  {one['end']['said']}"]
    verdicts = ", ".join(f"{gate_key(gate)} {gate['verdict']}" for gate in one["gates"])
    said = f"{one['id']} {one['phase']}  {step_words(one)}"
    lines = [f"{said}  {verdicts}" if verdicts else said]
    return [*lines, f"  {one['pause']['reason']}: {one['pause']['said']}"] if one["pause"] else lines
