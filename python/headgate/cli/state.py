"""The commands ``headgate state check|backup|restore``: what a gateway keeps, whole and copied. Next: offline.py."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from headgate.cli import session as cli
from headgate.cli.exits import EXIT_NO, failures
from headgate.cli.groups import Group
from headgate.cli.output import Format, Lines, show, words
from headgate.cli.target import GatewayOptions


@click.group(cls=Group)
def state() -> None:
    """Look after what a gateway keeps, whether it runs or not.

    \b
    Example:
      headgate state check --state /var/lib/headgate
      headgate state backup headgate-monday.tar
    """


_folder = click.option(
    "--state",
    "folder",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The gateway's state folder. [HEADGATE_STATE]",
)


def _named(context: click.Context, folder: Path | None) -> Path:
    """The folder of the option, else of the variable, else the usual one."""
    return GatewayOptions(state=folder).state_folder(cli.surroundings_of(context).variables)


@state.command()
@_folder
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
    with failures():
        # Imported here: it opens the database, and help need not wait for that.
        from headgate.cli.offline import check_state

        found = check_state(_named(context, folder))
    show(form, found, _lines, lambda data: [one["file"] for one in data["files"]])
    if found["revisions"] or found["files"]:
        sys.exit(EXIT_NO)


@state.command()
@click.argument("file", type=click.Path(path_type=Path))
@_folder
@click.pass_context
def backup(context: click.Context, file: Path, folder: Path | None) -> None:
    """Copy the state into one file, whether the gateway runs or not.

    Revisions, documents, tokens (as hashes), audit, models and baselines; not the file of the first admin token.

    \b
    Example:
      headgate state backup headgate-monday.tar --state /var/lib/headgate
    """
    with failures():
        from headgate.cli.offline import backup_state

        backup_state(_named(context, folder), file)
    words(f"{file} holds the state of {_named(context, folder)}")


@state.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@_folder
@click.pass_context
def restore(context: click.Context, file: Path, folder: Path | None) -> None:
    """Bring a backup back into an empty folder, and check it.

    \b
    Example:
      headgate state restore headgate-monday.tar --state /var/lib/headgate-restored
    """
    place = _named(context, folder)
    with failures():
        from headgate.cli.offline import check_state
        from headgate.store import restore_backup

        restore_backup(file, place)
        found = check_state(place)
    show("table", found, _lines, lambda _: [])
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
