"""Commands about documents: validate, plan, apply. What a document may say is headgate/documents' business.

``validate`` needs no gateway. A file may hold several documents; each is sent to its own endpoint, byte for
byte. Next: changes.py for how plans and results are shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from headgate.cli import session as cli
from headgate.cli.changes import dry, plan_view, show_change
from headgate.cli.client import AdminClient, if_match
from headgate.cli.endpoints import revision_of
from headgate.cli.session import Session
from headgate.documents import Document, json_schema, parse
from headgate.errors import InvalidArgument, NotFound, PolicyInvalid

_files = click.argument(
    "files", nargs=-1, metavar="FILE...", type=click.Path(path_type=Path, dir_okay=False, allow_dash=False)
)
_root = click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where this command's own check looks for `file:` paths; the gateway resolves them by itself. "
    "[default: each file's own folder]",
)
_remote = click.option(
    "--remote",
    is_flag=True,
    help="The files lie on another machine: do not tell the gateway their path; it resolves `file:` below the folder of "
    "the endpoint's last document, else below its --root.",
)


@click.command()
@_files
@click.option("--schema", is_flag=True, help="Print the JSON Schema of documents instead.")
@_root
@cli.json_option
def validate(files: tuple[Path, ...], schema: bool, root: Path | None, as_json: bool) -> None:
    """Check documents without a gateway.

    Every fault is listed with its path.

    \b
    Example:
      headgate validate digits.yaml
      headgate validate --schema > headgate.schema.json
    """
    if schema == bool(files):
        raise click.UsageError("name the files to check, or ask for --schema")
    if schema:
        click.echo(json.dumps(json_schema(), indent=2, ensure_ascii=False))
        return
    with cli.failures():
        reports = [_report(path, root) for path in files]
    if as_json:
        click.echo(json.dumps({"files": reports}, indent=2, ensure_ascii=False))
    for report in reports:
        for endpoint in [] if as_json else report["endpoints"]:
            click.echo(f"{report['file']}: {endpoint}: ok")
        for fault in report["faults"]:
            cli.words(_fault_words(report["file"], fault))
    if any(report["faults"] for report in reports):
        sys.exit(cli.EXIT_USAGE)


@click.command()
@_files
@click.option("--take-traffic", is_flag=True, help="Show what `apply --take-traffic` would do.")
@click.option("--check", is_flag=True, help="Exit 1 when anything would change.")
@_remote
@_root
@cli.client_options
def plan(session: Session, files: tuple[Path, ...], check: bool, root: Path | None, **options: Any) -> None:
    """Show what applying documents would do.

    \b
    Example:
      headgate plan digits.yaml
      headgate plan --check digits.yaml
    """
    _some(files)
    plans = []
    with session.client() as client:
        for path, document in _read(files, root):
            params = _parameters(path, document, options) | dry(dry_run=True)
            plans.append(client.put_document(document.name, document.raw, {}, params).body)
    for one in plans if not session.as_json else []:
        cli.draw(plan_view(one))
    if session.as_json:
        session.show({"plans": plans}, str)
    if check and any(one["changes"] for one in plans):
        sys.exit(cli.EXIT_NO)


@click.command()
@_files
@click.option("--take-traffic", is_flag=True, help="Move live traffic to what the document says.")
@click.option(
    "--if-revision", metavar="N", type=click.IntRange(min=1), help="Only if the endpoint is at revision N."
)
@click.option("--reason", "-m", metavar="TEXT", help="Why; kept in the revision and the audit.")
@_remote
@_root
@cli.client_options
def apply(
    session: Session, files: tuple[Path, ...], root: Path | None, reason: str | None, **options: Any
) -> None:
    """Make documents the desired state.

    It answers once the new revision serves. Live traffic moves only where the document's traffic differs
    from the last one applied.

    \b
    Example:
      headgate apply digits.yaml --reason "v2 at 10%"
    """
    _some(files)
    results = []
    with session.client() as client:
        for path, document in _read(files, root):
            params = _parameters(path, document, options) | ({"reason": reason} if reason else {})
            headers = _precondition(client, document.name, options["if_revision"])
            answer = client.put_document(document.name, document.raw, headers, params).body
            results.append(answer)
            if not session.as_json:
                show_change(session, answer, dry_run=False)
    if session.as_json:
        session.show({"results": results}, str)


def _precondition(client: AdminClient, endpoint: str, revision: int | None) -> dict[str, str]:
    """What the write is based on: the revision that was named, the present one, or that there is none."""
    if revision is not None:
        return if_match(revision)
    try:
        return if_match(revision_of(client, endpoint))
    except NotFound:
        return {"if-none-match": "*"}


def _parameters(path: Path, document: Document, options: Mapping[str, Any]) -> dict[str, str]:
    """The query of a PUT. The gateway learns the path only of a document with files: others may come from
    anywhere.
    """
    where = {"source": str(path.absolute())} if _has_files(document) and not options["remote"] else {}
    return where | ({"take_traffic": "true"} if options["take_traffic"] else {})


def _has_files(document: Document) -> bool:
    endpoint = document.endpoint
    models = any(version.model is not None for version in endpoint.versions.values())
    return models or (endpoint.drift is not None and endpoint.drift.baseline is not None)


def _some(files: tuple[Path, ...]) -> None:
    if not files:
        raise click.UsageError("name at least one file")


def _read(files: tuple[Path, ...], root: Path | None) -> list[tuple[Path, Document]]:
    """Every document of every file, all parsed before the first is sent: a fault in the last one changes
    nothing.
    """
    found: list[tuple[Path, Document]] = []
    for path in files:
        found += [(path, document) for document in _parse(path, root)]
    return found


def _parse(path: Path, root: Path | None) -> list[Document]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidArgument(f"{path} cannot be read: {error.strerror}") from error
    return parse(data, source=str(path), root=root or path.absolute().parent)


def _report(path: Path, root: Path | None) -> dict[str, Any]:
    """One file's endpoints, or its faults."""
    try:
        documents = _parse(path, root)
    except PolicyInvalid as error:
        return {"file": str(path), "endpoints": [], "faults": error.detail["faults"]}
    return {"file": str(path), "endpoints": [document.name for document in documents], "faults": []}


def _fault_words(file: str, fault: Mapping[str, Any]) -> str:
    line = f":{fault['line']}" if fault["line"] is not None else ""
    where = f"{fault['path']}: " if fault["path"] else ""
    return f"{file}{line}: {where}{fault['message']}"
