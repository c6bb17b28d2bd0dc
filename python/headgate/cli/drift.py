"""The command ``drift``: live inputs and outputs against the baseline, what matters first. Next: drift_view.py."""

from __future__ import annotations

import sys

import click

from headgate.cli import completion
from headgate.cli import session as cli
from headgate.cli.client import segment
from headgate.cli.drift_view import VERDICTS, drift_view, feature_name
from headgate.cli.exits import EXIT_NO
from headgate.cli.session import Session


@click.command()
@click.argument("endpoint", shell_complete=completion.endpoints)
@click.option("--window", metavar="TIME", help="The newest stretch of time, such as 1h. [default: 24h]")
@click.option(
    "--only", type=click.Choice(VERDICTS), multiple=True, help="Only rows of that verdict; may be repeated."
)
@click.option(
    "--all", "everything", is_flag=True, help="Every row; undecided ones are folded into one line otherwise."
)
@click.option("--check", is_flag=True, help="Exit 1 when any feature's verdict is fail.")
@cli.client_options
def drift(
    session: Session, endpoint: str, window: str | None, only: tuple[str, ...], everything: bool, check: bool
) -> None:
    """Compare live inputs and outputs with the baseline; what matters comes first.

    \b
    Example:
      headgate drift digits --window 1h
      headgate drift digits --only fail
      headgate drift digits --check
    """
    if only and everything:
        raise click.UsageError("--only and --all exclude each other")
    with session.client() as client:
        report = client.get(f"/endpoints/{segment(endpoint)}/drift", {"window": window}).body
    failed = any(feature.get("verdict") == "fail" for feature in report["features"])
    if only:
        report = report | {"features": [one for one in report["features"] if one.get("verdict") in only]}
    session.show(
        report,
        lambda data: drift_view(data, everything=everything or bool(only)),
        lambda data: [feature_name(one) for one in data["features"]],
    )
    if check and failed:
        sys.exit(EXIT_NO)
