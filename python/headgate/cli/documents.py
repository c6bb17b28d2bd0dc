"""Commands about documents: validate, plan, apply. What a document may say is headgate/documents' business.

``validate`` needs no gateway. A file may hold several documents; each is sent to its own endpoint, byte for byte. Next:
document_files.py for how they are read, plan_view.py for how plans and results are shown.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from headgate.cli import output
from headgate.cli import plans as stored_plans
from headgate.cli import session as cli
from headgate.cli.changes import change_options, show_change
from headgate.cli.client import AdminClient, if_match, segment
from headgate.cli.document_files import ReadDocument, file_arguments, parse_file, read_all
from headgate.cli.endpoints import present_revision
from headgate.cli.exits import EXIT_NO, EXIT_USAGE, failures
from headgate.cli.output import Format, Lines
from headgate.cli.plan_view import plan_view
from headgate.cli.session import Session
from headgate.cli.text import escape
from headgate.documents import Document, OtherDocument, json_schema, locate_files
from headgate.errors import HeadgateError, PolicyInvalid

_root = click.option(
    "--root",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Where this command's own check looks for `file:` paths; the gateway resolves them by itself. "
    "[default: each file's own folder]",
)
_if_revision = click.option(
    "--if-revision", metavar="N", type=click.IntRange(min=1), help="Only if the endpoint is at revision N."
)
_remote = click.option(
    "--remote",
    is_flag=True,
    help="The files lie on another machine: do not tell the gateway their path; it resolves `file:` below the folder of "
    "the endpoint's last document, else below its --root.",
)


@click.command()
@click.option("--schema", is_flag=True, help="Print the JSON Schema of documents instead.")
@click.option("--remote", is_flag=True, help="The models lie on another machine: do not look for them.")
@_root
@file_arguments
@cli.output_options
def validate(files: tuple[Path, ...], schema: bool, remote: bool, root: Path | None, form: Format) -> None:
    """Check documents without a gateway.

    Every fault is listed with its path; a model or baseline that is not there is one.

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
    with failures():
        reports = [_report(path, root, look=not remote) for path in files]
    output.show(
        form,
        {"files": reports},
        lambda data: _checked(data["files"]),
        lambda data: _valid_names(data["files"]),
    )
    for report in reports if form in ("table", "name") else []:
        for fault in report["faults"]:
            output.words(_fault_words(report["file"], fault))
        for warning in report["warnings"]:
            output.words(f"warning: {_fault_words(report['file'], warning)}")
    if any(report["faults"] for report in reports):
        sys.exit(EXIT_USAGE)


@click.command()
@click.option("--take-traffic", is_flag=True, help="Show what `apply --take-traffic` would do.")
@click.option("--check", is_flag=True, help="Exit 1 when anything would change.")
@_if_revision
@_remote
@_root
@file_arguments
@cli.client_options
def plan(session: Session, files: tuple[Path, ...], check: bool, root: Path | None, **options: Any) -> None:
    """Show what applying documents would do.

    What `apply` refuses is refused here, but for what only a load shows: models are opened and compared, and not
    run.

    \b
    Example:
      headgate plan digits.yaml
      headgate plan --check digits.yaml
    """
    documents = read_all(files, root)
    based_on = {} if options["if_revision"] is None else if_match(options["if_revision"])
    with session.client() as client:
        others = [_put_other(client, one, documents.dry(one)) for one in documents.others]
        plans = [
            client.put_document(
                _path(one),
                one.document.raw,
                based_on,
                _parameters(one, options) | documents.dry(),
            ).body
            for one in documents.endpoints
        ]
    session.show(
        {"documents": others, "plans": plans},
        lambda data: [
            *(line for one in data["documents"] for line in stored_plans.result_view(one)),
            *(line for one in data["plans"] for line in plan_view(one)),
        ],
        lambda data: [one["endpoint"] for one in data["plans"]],
    )
    if check and any(one["changes"] for one in [*others, *plans]):
        sys.exit(EXIT_NO)


@click.command()
@click.option("--take-traffic", is_flag=True, help="Move live traffic to what the document says.")
@_if_revision
@change_options
@_remote
@_root
@file_arguments
@cli.client_options
def apply(
    session: Session,
    files: tuple[Path, ...],
    root: Path | None,
    reason: str | None,
    dry_run: bool,
    **options: Any,
) -> None:
    """Make documents the desired state.

    Rollout plans and defaults are stored before the endpoints of the same files. It answers once the new revision
    serves. Live traffic moves only where the document's traffic differs from the last one applied.

    \b
    Example:
      headgate apply digits.yaml --reason "v2 at 10%"
      sed s/TAG/v3/ digits.yaml | headgate apply -f -
    """
    documents = read_all(files, root)
    others: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    said = {"reason": reason} if reason else {}
    with session.client() as client:
        try:
            for other in documents.others:
                params = said | (documents.dry(other) if dry_run else {})
                others.append(_put_other(client, other, params))
                if session.for_person:
                    session.show(others[-1], stored_plans.result_view, lambda _: [])
            for one in documents.endpoints:
                params = _parameters(one, options) | said | (documents.dry() if dry_run else {})
                headers = _precondition(client, one.document.name, options["if_revision"])
                answer = client.put_document(_path(one), one.document.raw, headers, params).body
                results.append(answer)
                if session.for_person:
                    show_change(session, answer, dry_run)
        except HeadgateError:
            # What was applied before the fault is applied, and must be told.
            if (others or results) and not session.for_person:
                _show_results(session, others, results)
            raise
    if not session.for_person:
        _show_results(session, others, results)


def _put_other(client: AdminClient, one: OtherDocument, params: Mapping[str, str]) -> dict[str, Any]:
    """Stores a plan or the defaults, which the endpoints of the same files may name."""
    return stored_plans.put(client, (one.kind, one.name), one.raw, params)


def _path(one: ReadDocument) -> str:
    return f"/endpoints/{segment(one.document.name)}"


def _show_results(session: Session, others: list[dict[str, Any]], results: list[dict[str, Any]]) -> None:
    session.show(
        {"documents": others, "results": results},
        lambda _: [],
        lambda data: [one["endpoint"] for one in data["results"]],
    )


def _precondition(client: AdminClient, endpoint: str, revision: int | None) -> dict[str, str]:
    """What the write is based on: the revision that was named, the present one, or that there is none."""
    return present_revision(client, endpoint) if revision is None else if_match(revision)


def _parameters(one: ReadDocument, options: Mapping[str, Any]) -> dict[str, str]:
    """The query of a PUT."""
    return ({} if options["remote"] else one.source) | (
        {"take_traffic": "true"} if options["take_traffic"] else {}
    )


def _report(path: Path, root: Path | None, *, look: bool) -> dict[str, Any]:
    """One file's endpoints without a fault, its plans and defaults, and the faults of the others."""
    try:
        parsed = parse_file(path, root)
    except PolicyInvalid as error:
        faults: list[dict[str, Any]] = error.detail["faults"]
        return {"file": str(path), "endpoints": [], "others": [], "faults": faults, "warnings": []}
    found = {
        document.name: [*_constants_alone(document), *(_missing_files(document) if look else [])]
        for document in parsed.documents
    }
    return {
        "file": str(path),
        "endpoints": [name for name, faults in found.items() if not faults],
        "others": [{"kind": one.kind, "name": one.name} for one in parsed.others],
        "faults": [fault for faults in found.values() for fault in faults],
        "warnings": [warning.as_dict() for document in parsed.documents for warning in document.warnings],
    }


def _constants_alone(document: Document) -> list[dict[str, Any]]:
    """What the data plane refuses: it knows the signature of a constant from a model beside it."""
    if any(version.model is not None for version in document.endpoint.versions.values()):
        return []
    message = f"{document.name} has constants alone, and a constant answers under a model's signature; add a version with a model"
    return [{"path": "versions", "line": None, "message": message}]


def _missing_files(document: Document) -> list[dict[str, Any]]:
    """Models and baselines that a gateway could not read, as far as that shows without one."""
    # Imported here, because the commands that speak to a gateway start faster without it.
    from headgate.drift import sample_fault
    from headgate.registry import model_fault

    try:
        located = locate_files(document)
    except PolicyInvalid as error:
        faults: list[dict[str, Any]] = error.detail["faults"]
        return faults
    found = {f"versions.{name}.model": model_fault(path) for name, path in located.models.items()}
    if located.baseline is not None:
        found["drift.baseline"] = sample_fault(located.baseline)
    return [
        {"path": path, "line": None, "message": message}
        for path, message in found.items()
        if message is not None
    ]


def _checked(reports: list[dict[str, Any]]) -> Lines:
    return [
        f"{report['file']}: {name}: ok"
        for report in reports
        for name in [
            *(f"{one['kind']} {one['name']}".rstrip() for one in report["others"]),
            *report["endpoints"],
        ]
    ]


def _valid_names(reports: list[dict[str, Any]]) -> Lines:
    return [endpoint for report in reports for endpoint in report["endpoints"]]


def _fault_words(file: str, fault: Mapping[str, Any]) -> str:
    line = f":{fault['line']}" if fault["line"] is not None else ""
    where = f"{fault['path']}: " if fault["path"] else ""
    return escape(f"{file}{line}: {where}{fault['message']}")
