"""The commands ``headgate rollout ...``: a challenger on its way to champion. Plans are plans.py's.

Each is one call of the admin API on the revision that was read before; pause is one on any, and abort is an emergency call. Next:
rollout_view.py for what is drawn, rollout_watch.py for watching.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.changes import change_options, dry, show_change
from headgate.cli.client import if_match, segment
from headgate.cli.endpoints import revision_of
from headgate.cli.exits import EXIT_NO
from headgate.cli.groups import Group
from headgate.cli.rollout_view import rollout_view, rollouts_view
from headgate.cli.rollout_watch import rollout_of
from headgate.cli.rollout_watch import watch as watched
from headgate.cli.session import Session

_endpoint = click.argument("endpoint", shell_complete=completion.endpoints)
_plan = click.option(
    "--plan",
    metavar="NAME",
    shell_complete=completion.plans,
    help='A stored plan, or "default" for the built-in one. [default: that of the document, else the built-in one]',
)


@click.group(cls=Group)
def rollout() -> None:
    """Take a challenger to champion step by step, on evidence.

    It advances by itself while its gates pass, pauses when they stay undecided, and is rolled back when one fails.

    \b
    Example:
      headgate rollout start digits v2 --dry-run
      headgate rollout start digits v2 --reason "trained on march"
      headgate rollout watch digits
    """


@rollout.command()
@_endpoint
@click.argument("version", shell_complete=completion.versions)
@_plan
@click.option("--retry", is_flag=True, help="Also if its digest was rolled back before; lifts the block.")
@change_options
@cli.client_options
def start(session: Session, endpoint: str, version: str, **options: Any) -> None:
    """Begin a rollout of a version.

    --dry-run says what would happen: the slots and keys that move in each step, its time at the present traffic, the
    smallest error ratio that it catches, and what is wrong with the plan.

    \b
    Example:
      headgate rollout start digits v2 --plan careful --dry-run
      headgate rollout start digits v2 --plan careful
    """
    verb = ":retry" if options["retry"] else ""
    _move(session, endpoint, verb, {"version": version, "plan": options["plan"]}, options)


@rollout.command()
@_endpoint
@click.argument("version", required=False, shell_complete=completion.versions)
@_plan
@change_options
@cli.client_options
def retry(session: Session, endpoint: str, version: str | None, **options: Any) -> None:
    """Begin a rollout of a version that was rolled back.

    Without VERSION, of the challenger of the last rollout. It is a new attempt, which is counted.

    \b
    Example:
      headgate rollout retry digits --reason "the timeouts were the network's"
    """
    _move(session, endpoint, ":retry", {"version": version, "plan": options["plan"]}, options)


@rollout.command()
@_endpoint
@cli.client_options
def show(session: Session, endpoint: str) -> None:
    """Show the rollout that is under way, or the last one.

    \b
    Example:
      headgate rollout show digits
      headgate rollout show digits --json
    """
    with session.client() as client:
        one = rollout_of(client, endpoint)
    session.show(one, rollout_view, lambda data: [data["id"]])


@rollout.command()
@_endpoint
@cli.client_options
def watch(session: Session, endpoint: str) -> None:
    """Watch a rollout until it has ended.

    Step, gates with their evidence, what is missing, time left. Exit code 1 if it ended without a promotion. In a pipe
    it prints a line for each change; with --json the whole rollout, one line each time.

    \b
    Example:
      headgate rollout watch digits
    """
    if watched(session, endpoint) != "promoted":
        sys.exit(EXIT_NO)


@rollout.command(name="list")
@_endpoint
@cli.client_options
def list_(session: Session, endpoint: str) -> None:
    """List the rollouts of an endpoint, newest first.

    \b
    Example:
      headgate rollout list digits
    """
    with session.client() as client:
        found = client.get(f"/endpoints/{segment(endpoint)}/rollouts").body
    session.show(
        found,
        lambda data: rollouts_view(data["rollouts"]),
        lambda data: [one["id"] for one in data["rollouts"]],
    )


@rollout.command()
@_endpoint
@click.option("--full", is_flag=True, help="To the end: the challenger becomes champion.")
@change_options
@cli.client_options
def promote(session: Session, endpoint: str, full: bool, **options: Any) -> None:
    """Go to the next step, whatever is undecided.

    What was undecided is recorded with your name. Refused while a gate shows harm, and past an approval that is missing.

    \b
    Example:
      headgate rollout promote digits --reason "seen enough"
      headgate rollout promote digits --full
    """
    _move(session, endpoint, ":promote", {"full": full or None}, options)


@rollout.command()
@_endpoint
@change_options
@cli.client_options
def pause(session: Session, endpoint: str, **options: Any) -> None:
    """Hold a rollout where it is.

    The challenger keeps its traffic; harm still rolls it back.

    \b
    Example:
      headgate rollout pause digits --reason "incident next door"
    """
    # Whichever step it has come to meanwhile, that is where it is to be held.
    _move(session, endpoint, ":pause", {}, options, at_any_revision=True)


@rollout.command()
@_endpoint
@change_options
@cli.client_options
def resume(session: Session, endpoint: str, **options: Any) -> None:
    """Have a paused rollout go on.

    Its step begins anew, with the weight that the plan gives it.

    \b
    Example:
      headgate rollout resume digits
    """
    _move(session, endpoint, ":resume", {}, options)


@rollout.command()
@_endpoint
@click.option(
    "--digest",
    metavar="SHA256",
    help="Only if exactly these bytes are on trial. [default: what is shown now]",
)
@change_options
@cli.client_options
def approve(session: Session, endpoint: str, digest: str | None, **options: Any) -> None:
    """Say yes to the next step that needs it.

    With the role of your token, for the bytes on trial. Who started the rollout cannot approve it.

    \b
    Example:
      headgate rollout approve digits --reason "read the report"
    """
    with session.client() as client:
        digest = digest or rollout_of(client, endpoint)["digest"]
    _move(session, endpoint, ":approve", {"digest": digest}, options)


@rollout.command()
@_endpoint
@change_options
@cli.client_options
def abort(session: Session, endpoint: str, **options: Any) -> None:
    """End a rollout: everything as it was before it.

    Nothing is blocked. Works until it is promoted, also while frozen; then `headgate rollback`
    goes back.

    \b
    Example:
      headgate rollout abort digits --reason "not today"
    """
    body = {"reason": options["reason"]}
    with session.client() as client:
        path = f"/endpoints/{segment(endpoint)}/rollout:abort"
        answer = client.post(path, body, params=dry(options["dry_run"])).body
    show_change(session, answer, options["dry_run"])


def _move(
    session: Session,
    endpoint: str,
    verb: str,
    body: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    at_any_revision: bool = False,
) -> None:
    """A call on the revision that the endpoint is at, or on any."""
    with session.client() as client:
        based_on = if_match(None if at_any_revision else revision_of(client, endpoint))
        path = f"/endpoints/{segment(endpoint)}/rollout{verb}"
        asked = {**body, "reason": options["reason"]}
        answer = client.post(path, asked, based_on, dry(options["dry_run"])).body
    show_change(session, answer, options["dry_run"])
