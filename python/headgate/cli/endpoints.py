"""The command ``get``: all endpoints, or one in full. What it draws is in endpoint_view.py; next: that one."""

from __future__ import annotations

import click

from headgate.cli import completion, output
from headgate.cli import session as cli
from headgate.cli.client import AdminClient, if_match, segment
from headgate.cli.endpoint_view import endpoint_view, endpoints_view
from headgate.cli.session import Session
from headgate.errors import ModelNotReady, NotFound


@click.command()
@click.argument("endpoint", required=False, shell_complete=completion.endpoints)
@click.option("--document", "as_document", is_flag=True, help="Print the endpoint's document, byte for byte.")
@cli.client_options
def get(session: Session, endpoint: str | None, as_document: bool) -> None:
    """Show all endpoints, or one in full.

    \b
    Example:
      headgate get
      headgate get digits
      headgate get digits --document > digits.yaml
    """
    if endpoint is None and as_document:
        raise click.UsageError("--document needs an ENDPOINT")
    with session.client() as client:
        if endpoint is None:
            found = client.get("/endpoints").body
            session.show(
                found,
                lambda data: endpoints_view(data["endpoints"]),
                lambda data: [one["name"] for one in data["endpoints"]],
            )
            return
        one = client.get(f"/endpoints/{segment(endpoint)}").body
    if as_document:
        output.echo_document(one["document"])
        return
    session.show(one, endpoint_view, lambda data: [data["name"]])


def revision_of(client: AdminClient, endpoint: str) -> int | None:
    """The revision that a write is based on."""
    return client.get(f"/endpoints/{segment(endpoint)}/traffic").revision


def present_revision(client: AdminClient, endpoint: str) -> dict[str, str]:
    """The precondition of a write that may create: the revision that the endpoint is at, or that there is none."""
    try:
        return if_match(revision_of(client, endpoint))
    except (NotFound, ModelNotReady):  # there is none, or nobody knows what it is
        return {"if-none-match": "*"}
