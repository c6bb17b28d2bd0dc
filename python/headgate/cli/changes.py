"""Commands that change live traffic: traffic, rollback, abort, restore, block, unblock, freeze, unfreeze.

Documents are changed by documents.py. Rollback, abort, block and freeze are the emergency calls: they ask
for no revision, may be repeated, and work while an endpoint is frozen. Next: session.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.client import AdminClient, if_match, segment
from headgate.cli.endpoints import present_revision, revision_of
from headgate.cli.output import words
from headgate.cli.plan_view import plan_view, result_view
from headgate.cli.session import Session
from headgate.cli.traffic_view import traffic_view
from headgate.errors import HeadgateError, PolicyInvalid, VersionNotFound

SWITCH = ("on", "off")


def change_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--reason`` and ``--dry-run`` to a command that changes something."""
    command = click.option("--dry-run", is_flag=True, help="Print what would change, change nothing.")(
        command
    )
    return click.option("--reason", "-m", metavar="TEXT", help="Why; kept in the revision and the audit.")(
        command
    )


def dry(dry_run: bool) -> dict[str, str]:
    """The query parameters of a write."""
    return {"dry_run": "true"} if dry_run else {}


def show_change(session: Session, answer: Mapping[str, Any], dry_run: bool) -> None:
    """Prints a ``Plan`` after a dry run, else a ``Result``."""
    session.show(answer, plan_view if dry_run else result_view, lambda data: [data["endpoint"]])
    if not dry_run and not answer["durable"]:
        words(
            "headgate: the change is live but could not be stored: a restart would undo it; mend the state folder "
            "(see the endpoint's alarms in `headgate get`)"
        )


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("weights", nargs=-1, metavar="[VERSION=SHARE%]...", shell_complete=completion.versions)
@click.option(
    "--champion",
    metavar="VERSION",
    shell_complete=completion.versions,
    help="Make this version the champion.",
)
@click.option(
    "--shadow",
    "shadows",
    multiple=True,
    metavar="VERSION=on|off",
    shell_complete=completion.versions,
    help="Switch a shadow of the document on or off; may be repeated.",
)
@click.option("--capture", type=click.Choice(SWITCH), help="Switch the capture of the document on or off.")
@change_options
@cli.client_options
def traffic(
    session: Session,
    endpoint: str,
    weights: tuple[str, ...],
    reason: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Show live traffic, or change it.

    Versions that are not named keep their weight; 0% gives everything back to the champion. A switch needs no new
    document, and stays when one is applied.

    \b
    Example:
      headgate traffic digits
      headgate traffic digits v2=5% --reason "first users"
      headgate traffic digits --champion v2
      headgate traffic digits --shadow v3=off --capture off
    """
    path = f"/endpoints/{segment(endpoint)}/traffic"
    given, champion = _weights(weights), options["champion"]
    asked = {
        "weights": given or None,
        "champion": champion,
        "shadows": _switches(options["shadows"]) or None,
        "capture": options["capture"],
    }
    with session.client() as client:
        if all(part is None for part in asked.values()):
            live = client.get(path).body
            session.show(live, traffic_view, lambda data: [data["endpoint"]])
            return
        revision = client.get(path).revision
        try:
            answer = client.patch(path, asked | {"reason": reason}, if_match(revision), dry(dry_run)).body
        except PolicyInvalid as error:
            named = {*given, *([champion] if champion else []), *(asked["shadows"] or {})}
            raise _named_wrongly(client, endpoint, named, error) from error
    show_change(session, answer, dry_run)


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@change_options
@cli.client_options
def rollback(session: Session, endpoint: str, reason: str | None, dry_run: bool) -> None:
    """Go back to the last good champion, now.

    It gets 100%; versions that lose traffic are blocked until `unblock`. Works at any time: while frozen,
    during a load, with a full disk. Said twice, it answers what holds.

    \b
    Example:
      headgate rollback digits --reason "wrong totals since noon"
    """
    _emergency(session, endpoint, "rollback", {"reason": reason}, dry_run)


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@change_options
@cli.client_options
def abort(session: Session, endpoint: str, reason: str | None, dry_run: bool) -> None:
    """Give all traffic back to the champion.

    Nothing is blocked; the challengers stay loaded, and rules and shadows stay as they are.

    \b
    Example:
      headgate abort digits --reason "not today"
    """
    _emergency(session, endpoint, "abort", {"reason": reason}, dry_run)


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("subject", metavar="VERSION|DIGEST", shell_complete=completion.versions)
@change_options
@cli.client_options
def block(session: Session, endpoint: str, subject: str, reason: str | None, dry_run: bool) -> None:
    """Keep a version from traffic.

    Its digest gets none, under any name, until it is unblocked.

    \b
    Example:
      headgate block digits v2 --reason "trained on the wrong month"
    """
    _emergency(session, endpoint, "block", {**_subject(subject), "reason": reason}, dry_run)


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@change_options
@cli.client_options
def freeze(session: Session, endpoint: str, reason: str | None, dry_run: bool) -> None:
    """Refuse all but the emergency calls.

    \b
    Example:
      headgate freeze digits --reason "audit until friday"
    """
    _emergency(session, endpoint, "freeze", {"reason": reason}, dry_run)


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@change_options
@cli.client_options
def unfreeze(session: Session, endpoint: str, reason: str | None, dry_run: bool) -> None:
    """Allow changes of an endpoint again.

    \b
    Example:
      headgate unfreeze digits
    """
    _guarded(session, endpoint, "unfreeze", {"reason": reason}, dry_run)


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("subject", metavar="VERSION|DIGEST", shell_complete=completion.versions)
@change_options
@cli.client_options
def unblock(session: Session, endpoint: str, subject: str, reason: str | None, dry_run: bool) -> None:
    """Allow a blocked version again.

    It gets no slots by this alone; rules that name it send requests to it again.

    \b
    Example:
      headgate unblock digits v2 --reason "retrained"
    """
    _guarded(session, endpoint, "unblock", {**_subject(subject), "reason": reason}, dry_run)


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.argument("revision", type=click.IntRange(min=1))
@change_options
@cli.client_options
def restore(session: Session, endpoint: str, revision: int, reason: str | None, dry_run: bool) -> None:
    """Bring an old revision back, as a new one.

    An endpoint that was deleted is there again with it.

    \b
    Example:
      headgate restore digits 38 --dry-run
      headgate restore digits 38
    """
    body = {"revision": revision, "reason": reason}
    with session.client() as client:
        based_on = present_revision(client, endpoint)
        path = f"/endpoints/{segment(endpoint)}:restore"
        answer = client.post(path, body, based_on, dry(dry_run)).body
    show_change(session, answer, dry_run)


def _named_wrongly(
    client: AdminClient, endpoint: str, versions: set[str], error: PolicyInvalid
) -> HeadgateError:
    """The same refusal, as one about a version that is not there if that is so."""
    known = client.get(f"/endpoints/{segment(endpoint)}").body["versions"]
    return error if versions <= set(known) else VersionNotFound(error.message, detail=error.detail)


def _emergency(session: Session, endpoint: str, verb: str, body: Mapping[str, Any], dry_run: bool) -> None:
    """A call without precondition: whoever makes it must not have to read first."""
    with session.client() as client:
        answer = client.post(f"/endpoints/{segment(endpoint)}:{verb}", body, params=dry(dry_run)).body
    show_change(session, answer, dry_run)


def _guarded(session: Session, endpoint: str, verb: str, body: Mapping[str, Any], dry_run: bool) -> None:
    with session.client() as client:
        revision = revision_of(client, endpoint)
        path = f"/endpoints/{segment(endpoint)}:{verb}"
        answer = client.post(path, body, if_match(revision), dry(dry_run)).body
    show_change(session, answer, dry_run)


def _weights(written: tuple[str, ...]) -> dict[str, str]:
    weights: dict[str, str] = {}
    for text in written:
        version, equals, share = text.partition("=")
        if not equals or not version or not share:
            raise click.UsageError(f"{text!r}: write a weight as VERSION=SHARE%, such as v2=5%")
        if not share.endswith("%"):
            raise click.UsageError(f"{text!r}: the percent sign is required, such as {text + '%'!r}")
        if version in weights:
            raise click.UsageError(f"{version!r} is given two weights")
        weights[version] = share
    return weights


def _switches(written: tuple[str, ...]) -> dict[str, str]:
    switches: dict[str, str] = {}
    for text in written:
        version, _, switch = text.rpartition("=")
        if not version or switch not in SWITCH:
            raise click.UsageError(
                f"--shadow {text!r}: write it as VERSION=on or VERSION=off, such as v2=off"
            )
        if version in switches:
            raise click.UsageError(f"--shadow: {version!r} is given twice")
        switches[version] = switch
    return switches


def _subject(text: str) -> dict[str, str]:
    return {"digest": text} if text.startswith("sha256:") else {"version": text}
