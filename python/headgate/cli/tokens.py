"""The commands ``headgate token create|list|revoke``. Tokens are made by the gateway; next: session.py."""

from __future__ import annotations

from typing import Any

import click

from headgate.cli import session as cli
from headgate.cli.client import segment
from headgate.cli.groups import Group
from headgate.cli.output import Lines, Table, words
from headgate.cli.session import Session


@click.group(cls=Group)
def token() -> None:
    """Make, list and revoke admin tokens.

    \b
    Example:
      headgate token create --name ci --role operator --expires 90d
    """


@token.command()
@click.option("--name", required=True, metavar="NAME", help="Who or what will use it; shown in the audit.")
@click.option(
    "--role",
    required=True,
    type=click.Choice(["viewer", "operator", "approver", "admin"]),
    help="What it may do.",
)
@click.option(
    "--expires", metavar="TIME", help="How long it is good for, such as 90d. [default: until revoked]"
)
@click.option(
    "--offline",
    is_flag=True,
    help="Write it to the state folder, without a token and whether the gateway runs or not, if the token is lost.",
)
@cli.client_options
def create(session: Session, name: str, role: str, expires: str | None, offline: bool) -> None:
    """Make a token; its secret is printed this once.

    \b
    Example:
      headgate token create --name ci --role operator --expires 90d
      headgate token create --offline --state /var/lib/headgate --name me --role admin
    """
    if offline:
        # Imported here: it opens the database, and no other command waits for that.
        from headgate.cli.offline import create_token

        made = create_token(session.state_folder(), name, role, expires)
    else:
        with session.client() as client:
            made = client.post("/tokens", {"name": name, "role": role, "expires_in": expires}).body
    session.show(made, lambda data: [data["secret"]], lambda data: [data["id"]])
    if session.for_person:
        words(f"token {made['id']} ({made['role']}) made for {made['name']}; the secret is not shown again")


@token.command("list")
@cli.client_options
def list_tokens(session: Session) -> None:
    """List tokens without their secrets.

    \b
    Example:
      headgate token list
    """
    with session.client() as client:
        found = client.get("/tokens").body
    session.show(
        found, lambda data: _tokens(data["tokens"]), lambda data: [one["id"] for one in data["tokens"]]
    )


@token.command()
@click.argument("token_id", metavar="ID")
@click.option("--force", is_flag=True, help="Even if it is the last admin token that can be used.")
@cli.client_options
def revoke(session: Session, token_id: str, force: bool) -> None:
    """Make a token worthless at once.

    \b
    Example:
      headgate token revoke 3f9a1c
    """
    with session.client() as client:
        params = {"force": "true"} if force else {}
        gone = client.delete(f"/tokens/{segment(token_id)}", params=params).body
    session.show(
        gone,
        lambda data: [f"token {data['id']} ({data['name']}) revoked {data['revoked']}"],
        lambda data: [data["id"]],
    )


def _tokens(tokens: list[dict[str, Any]]) -> Lines:
    made = Table("ID", "NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED", "REVOKED")
    for one in tokens:
        made.row(
            one["id"],
            one["name"],
            one["role"],
            one["created"],
            one["expires"],
            one["last_used"],
            one["revoked"],
        )
    return made.lines()
