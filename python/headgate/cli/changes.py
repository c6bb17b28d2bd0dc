"""Commands that change live traffic: traffic, rollback, abort, restore, block, unblock, freeze, unfreeze.

Documents are changed by documents.py. Rollback, abort, block and freeze are the emergency calls: they ask
for no revision, may be repeated, and work while an endpoint is frozen. Next: session.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click
from rich.console import Group, RenderableType

from headgate.cli import session as cli
from headgate.cli.client import if_match, segment
from headgate.cli.endpoints import revision_of, traffic_view, traffic_words
from headgate.cli.session import Session


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
    if dry_run:
        session.show(answer, lambda: plan_view(answer))
        return
    session.show(answer, lambda: _result(answer))
    if not answer["durable"]:
        cli.words(
            "headgate: the change is live but could not be stored: a restart would undo it; mend the state folder "
            "(see the endpoint's alarms in `headgate get`)"
        )


def plan_view(plan: Mapping[str, Any]) -> RenderableType:
    """What a change would do, in words."""
    champion = plan["champion"]
    if not plan["changes"]:
        return Group(f"{plan['endpoint']}: no changes", *_indented(plan["notes"]))
    base = (
        "new" if plan["base_revision"] is None else f"revision {plan['base_revision']} -> {plan['revision']}"
    )
    lines = [f"{plan['endpoint']}: {base}"]
    if champion["from"] != champion["to"]:
        lines.append(f"  champion: {champion['from'] or 'none'} -> {champion['to']}")
    lines += [f"  {pair}: {slots / 100:g}% of keys" for pair, slots in plan["moves"].items()]
    lines += [f"  {verb}: {', '.join(plan[verb])}" for verb in ("load", "unload", "block") if plan[verb]]
    return Group(*lines, *_indented(plan["notes"]), *([plan["diff"].rstrip("\n")] if plan["diff"] else []))


@click.command()
@click.argument("endpoint")
@click.argument("weights", nargs=-1, metavar="[VERSION=SHARE%]...")
@click.option("--champion", metavar="VERSION", help="Make this version the champion.")
@change_options
@cli.client_options
def traffic(
    session: Session,
    endpoint: str,
    weights: tuple[str, ...],
    champion: str | None,
    reason: str | None,
    dry_run: bool,
) -> None:
    """Show live traffic, or move it.

    Versions that are not named keep their weight; 0% gives everything back to the champion.

    \b
    Example:
      headgate traffic digits
      headgate traffic digits v2=5% --reason "first users"
      headgate traffic digits --champion v2
    """
    path = f"/endpoints/{segment(endpoint)}/traffic"
    given = _weights(weights)
    with session.client() as client:
        if not given and champion is None:
            live = client.get(path).body
            session.show(live, lambda: traffic_view(live))
            return
        body = {"weights": given or None, "champion": champion, "reason": reason}
        revision = client.get(path).revision
        answer = client.patch(path, body, if_match(revision), dry(dry_run)).body
    show_change(session, answer, dry_run)


@click.command()
@click.argument("endpoint")
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
@click.argument("endpoint")
@change_options
@cli.client_options
def abort(session: Session, endpoint: str, reason: str | None, dry_run: bool) -> None:
    """Give all traffic back to the champion.

    Nothing is blocked; the challengers stay loaded.

    \b
    Example:
      headgate abort digits --reason "not today"
    """
    _emergency(session, endpoint, "abort", {"reason": reason}, dry_run)


@click.command()
@click.argument("endpoint")
@click.argument("subject", metavar="VERSION|DIGEST")
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
@click.argument("endpoint")
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
@click.argument("endpoint")
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
@click.argument("endpoint")
@click.argument("subject", metavar="VERSION|DIGEST")
@change_options
@cli.client_options
def unblock(session: Session, endpoint: str, subject: str, reason: str | None, dry_run: bool) -> None:
    """Allow a blocked version again.

    It gets no traffic by this alone.

    \b
    Example:
      headgate unblock digits v2 --reason "retrained"
    """
    _guarded(session, endpoint, "unblock", {**_subject(subject), "reason": reason}, dry_run)


@click.command()
@click.argument("endpoint")
@click.argument("revision", type=click.IntRange(min=1))
@change_options
@cli.client_options
def restore(session: Session, endpoint: str, revision: int, reason: str | None, dry_run: bool) -> None:
    """Bring an old revision back, as a new one.

    \b
    Example:
      headgate restore digits 38 --dry-run
      headgate restore digits 38
    """
    _guarded(session, endpoint, "restore", {"revision": revision, "reason": reason}, dry_run)


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
            raise click.UsageError(f"{text!r}: the percent sign is required, such as {version}={share}%")
        if version in weights:
            raise click.UsageError(f"{version} is given two weights")
        weights[version] = share
    return weights


def _subject(text: str) -> dict[str, str]:
    return {"digest": text} if text.startswith("sha256:") else {"version": text}


def _result(answer: Mapping[str, Any]) -> RenderableType:
    traffic = answer["traffic"]
    said, name = answer["message"] or answer["status"], answer["endpoint"]
    head = f"{said if said.startswith(name) else f'{name}: {said}'} (revision {answer['revision']})"
    return Group(
        head,
        f"  traffic: {traffic_words(traffic['champion'], traffic['weights'])}",
        *_indented(answer["plan"]["notes"]),
    )


def _indented(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]
