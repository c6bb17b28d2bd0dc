"""The command ``shadow``: what shadows answered beside the champion, once or again and again. Next: shadow_view.py."""

from __future__ import annotations

from typing import Any

import click

from headgate.cli import completion, output
from headgate.cli import session as cli
from headgate.cli.client import AdminClient, segment
from headgate.cli.exits import EXIT_TRY_AGAIN, exit_code
from headgate.cli.output import Lines, words
from headgate.cli.session import Session
from headgate.cli.shadow_view import EXAMPLES_SHOWN, shadows_view
from headgate.errors import HeadgateError, VersionNotFound


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("version", required=False, shell_complete=completion.versions)
@click.option("--examples", is_flag=True, help=f"All kept examples, and not the newest {EXAMPLES_SHOWN}.")
@click.option("--watch", "-w", "watching", is_flag=True, help="Show it again and again, until Ctrl-C.")
@click.option(
    "--every",
    metavar="SECONDS",
    default=2.0,
    show_default=True,
    type=click.FloatRange(min=0.5),
    help="The pause of --watch.",
)
@cli.client_options
def shadow(
    session: Session, endpoint: str, version: str | None, examples: bool, watching: bool, every: float
) -> None:
    """Show what shadows answer beside the champion, all of them or one.

    The disagreement stands beside the noise floor: how often the champion differs from itself when it runs in the shadow's place. --watch
    goes on when the gateway restarts.

    \b
    Example:
      headgate shadow digits
      headgate shadow digits v8 --examples
      headgate shadow digits --watch
    """

    def view(report: Any) -> Lines:
        return shadows_view(report, examples=None if examples else EXAMPLES_SHOWN)

    def names(report: Any) -> Lines:
        return [one["to"] for one in report["shadows"]]

    with session.client() as client:
        report = _report(client, endpoint, version)
        if not watching:
            session.show(report, view, names)
            return
        while True:
            if session.for_person:
                click.clear()
            output.show_next(session.form, report, view, names)
            session.environment.timing.sleep(every)
            report = _next_report(session, client, (endpoint, version), every)


def _next_report(session: Session, client: AdminClient, asked: tuple[str, str | None], every: float) -> Any:
    """The next one; while the gateway cannot be reached or is not ready, that is said and tried again."""
    while True:
        try:
            return _report(client, *asked)
        except HeadgateError as error:
            if exit_code(error) != EXIT_TRY_AGAIN:
                raise
            words(f"headgate: {error.message}; again in {every:g} s")
            session.environment.timing.sleep(every)


def _report(client: AdminClient, endpoint: str, version: str | None) -> Any:
    """The report, of one shadow if that is named."""
    report = client.get(f"/endpoints/{segment(endpoint)}/shadows").body
    if version is None:
        return report
    found = [one for one in report["shadows"] if one["to"] == version]
    if not found:
        has = ", ".join(one["to"] for one in report["shadows"]) or "none"
        raise VersionNotFound(f"{version} is no shadow of {endpoint}; it has {has}")
    return {**report, "shadows": found}
