"""The command ``headgate state check``: whether what a gateway keeps is whole. The work is offline.py's; next: that one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from headgate.cli import session as cli
from headgate.cli.exits import EXIT_NO, failures
from headgate.cli.groups import Group
from headgate.cli.output import Format, Lines, show
from headgate.cli.target import GatewayOptions


@click.group(cls=Group)
def state() -> None:
    """Look after what a gateway keeps, whether it runs or not.

    \b
    Example:
      headgate state check --state /var/lib/headgate
    """


@state.command()
@click.option(
    "--state",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The gateway's state folder. [HEADGATE_STATE]",
)
@cli.output_options
@click.pass_context
def check(context: click.Context, folder: Path | None, form: Format) -> None:
    """Compare every revision, document and model file with its digest.

    Reads everything and changes nothing. Exits 1 when anything is not as it was written.

    \b
    Example:
      headgate state check
      headgate state check --state /var/lib/headgate -o json
    """
    variables = cli.surroundings_of(context).variables
    with failures():
        # Imported here: it opens the database, and help need not wait for that.
        from headgate.cli.offline import check_state

        found = check_state(GatewayOptions(state=folder).state_folder(variables))
    show(form, found, _lines, lambda data: [one["file"] for one in data["files"]])
    if found["revisions"] or found["files"]:
        sys.exit(EXIT_NO)


def _lines(found: dict[str, Any]) -> Lines:
    damages = [
        f"damaged: revision {one['revision']} of {one['endpoint']}: {one['what']}"
        for one in found["revisions"]
    ]
    damages += [f"damaged: {one['file']}: {one['what']}" for one in found["files"]]
    checked = found["checked"]
    whole = (
        f"{found['state']}: whole (endpoints: {checked['endpoints']}, files of models: {checked['files']})"
    )
    return damages or [whole]
