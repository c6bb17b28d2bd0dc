"""The commands ``headgate plans ...``: stored rollout plans, and the defaults. What they may say is headgate/documents' business.

``headgate apply`` takes their documents beside those of endpoints. Next: documents.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.changes import change_options, dry
from headgate.cli.client import AdminClient, if_match, segment
from headgate.cli.groups import Group
from headgate.cli.output import Lines, Table, to_yaml
from headgate.cli.session import Session
from headgate.errors import NotFound

DEFAULTS = "Defaults"


@click.group(cls=Group)
def plans() -> None:
    """Rollout plans, and the defaults of all endpoints.

    \b
    Example:
      headgate plans list
      headgate plans show careful
      headgate apply careful.yaml
    """


_name = click.argument("name", required=False, metavar="[NAME]", shell_complete=completion.plans)
_defaults = click.option("--defaults", is_flag=True, help="The document of kind Defaults, instead of a plan.")


@plans.command(name="list")
@cli.client_options
def list_(session: Session) -> None:
    """List the stored plans. The built-in plan, default, is made for each endpoint.

    \b
    Example:
      headgate plans list
    """
    with session.client() as client:
        found = client.get("/plans").body
    session.show(
        found, lambda data: _table(data["plans"]), lambda data: [one["name"] for one in data["plans"]]
    )


@plans.command()
@_name
@_defaults
@cli.client_options
def show(session: Session, name: str | None, defaults: bool) -> None:
    """Show a plan, or the defaults.

    \b
    Example:
      headgate plans show careful
      headgate plans show --defaults
    """
    path = _path(name, defaults)
    with session.client() as client:
        one = client.get(path).body
    session.show(one, _plan, lambda data: [data["name"] or "defaults"])


@plans.command()
@click.argument(
    "files", nargs=-1, required=True, metavar="FILE...", type=click.Path(path_type=Path, allow_dash=True)
)
@change_options
@cli.client_options
def apply(session: Session, files: tuple[Path, ...], reason: str | None, dry_run: bool) -> None:
    """Store plans and defaults, as `headgate apply` does.

    If the gateway refuses one of several, none is stored. A rollout under way keeps the plan that it began with.

    \b
    Example:
      headgate plans apply careful.yaml --dry-run
      headgate plans apply careful.yaml
    """
    # Imported here: the other commands wait for no parser of documents.
    from headgate.cli.document_files import read_all

    documents = read_all(files, None)
    if documents.endpoints:
        named = ", ".join(one.document.name for one in documents.endpoints)
        raise click.UsageError(f"{named}: documents of endpoints are applied with `headgate apply`")
    with session.client() as client:
        # Several are tried before the first is stored: what is refused is not half applied.
        is_tried = dry_run or len(documents.others) > 1
        planned = [
            put(client, (one.kind, one.name), one.raw, _said(reason) | documents.dry(one))
            for one in documents.others
            if is_tried
        ]
        if dry_run:
            _show_results(session, planned)
            return
        results: list[dict[str, Any]] = []
        try:
            for one in documents.others:
                results.append(put(client, (one.kind, one.name), one.raw, _said(reason)))
        finally:
            # What was stored before a failure is stored, and must be told.
            if results:
                _show_results(session, results)


@plans.command()
@_name
@_defaults
@change_options
@cli.client_options
def delete(session: Session, name: str | None, defaults: bool, reason: str | None, dry_run: bool) -> None:
    """Remove a plan that nothing names, or the defaults.

    \b
    Example:
      headgate plans delete careful
      headgate plans delete --defaults
    """
    path = _path(name, defaults)
    with session.client() as client:
        based_on = if_match(client.get(path).revision)
        answer = client.delete(path, based_on, _said(reason) | dry(dry_run)).body
    session.show(answer, result_view, lambda data: [data["name"] or "defaults"])


def put(
    client: AdminClient, about: tuple[str, str], document: bytes, params: Mapping[str, Any]
) -> dict[str, Any]:
    """Stores a document of kind and name ``about`` on what is stored now; the answer."""
    kind, name = about
    path = "/defaults" if kind == DEFAULTS else f"/plans/{segment(name)}"
    try:
        based_on = if_match(client.get(path).revision)
    except NotFound:
        based_on = {"if-none-match": "*"}
    answer: dict[str, Any] = client.put_document(path, document, based_on, params).body
    return answer


def result_view(answer: Mapping[str, Any]) -> Lines:
    """What a write of a plan did or would do."""
    said = f"{answer['message']} (number {answer['n']})"
    return [f"dry run: {said}", *answer["diff"].splitlines()] if answer["status"] == "planned" else [said]


def _show_results(session: Session, results: list[dict[str, Any]]) -> None:
    session.show(
        {"results": results},
        lambda data: [line for one in data["results"] for line in result_view(one)],
        lambda data: [one["name"] or "defaults" for one in data["results"]],
    )


def _said(reason: str | None) -> dict[str, str]:
    return {"reason": reason} if reason else {}


def _path(name: str | None, defaults: bool) -> str:
    if (name is None) != defaults:
        raise click.UsageError("name a plan, or say --defaults")
    return "/defaults" if name is None else f"/plans/{segment(name)}"


def _table(found: list[dict[str, Any]]) -> Lines:
    made = Table("PLAN", "NUMBER", "STEPS", "WRITTEN", "WHO")
    for one in found:
        made.row(one["name"], one["n"], _steps(one["document"]["steps"]), one["written"], one["who"])
    return made.lines()


def _steps(steps: list[Any]) -> str:
    """``shadow 10%, weight 5%, promote``."""
    return ", ".join(step if isinstance(step, str) else _step(step) for step in steps)


def _step(step: Mapping[str, Any]) -> str:
    kind = next(name for name in ("replay", "shadow", "weight", "approve") if name in step)
    return f"approve ({step[kind].get('role', 'approver')})" if kind == "approve" else f"{kind} {step[kind]}"


def _plan(one: Mapping[str, Any]) -> Lines:
    head = f"{one['kind']} {one['name']}".rstrip()
    return [
        f"{head}  number {one['n']}  written {one['written']} by {one['who']}",
        "",
        *to_yaml(one["document"]).splitlines(),
    ]
