"""The commands ``headgate state check|backup|restore|collect|export``: what can be done about a state folder without its gateway.

The work is gateway/state_folder.py; this file prints. Next: that one.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headgate.cli import output
from headgate.cli import session as cli
from headgate.cli.exits import EXIT_NO, failures
from headgate.cli.groups import Group
from headgate.cli.output import Format, words
from headgate.cli.target import GatewayOptions
from headgate.private_files import check_owner

if TYPE_CHECKING:
    from headgate.gateway.state_folder import Found


def _folder(command: Callable[..., None]) -> Callable[..., None]:
    """Adds ``--state`` and hands the command the folder."""

    @click.option(
        "--state", metavar="DIR", type=click.Path(path_type=Path), help="The state folder. [HEADGATE_STATE]"
    )
    @click.pass_context
    @wraps(command)
    def wrapped(context: click.Context, /, state: Path | None, **rest: Any) -> None:
        variables = cli.environment_of(context).variables
        with failures():
            command(GatewayOptions(state=state).state_folder(variables).absolute(), **rest)

    return wrapped


@click.group(cls=Group)
def state() -> None:
    """Check a state folder, copy it, bring a copy back, remove what no revision references.

    A gateway may be running on the folder, except that one is restored into a new folder.

    \b
    Example:
      headgate state check
      headgate state backup headgate-monday.tar
    """


@state.command()
@_folder
@cli.output_options
def check(folder: Path, form: Format) -> None:
    """Read everything and say what is damaged; exit code 1 if something is.

    \b
    Example:
      headgate state check --state S
    """
    from headgate.gateway import state_folder

    check_owner(folder)
    found = state_folder.check(folder)
    _show(folder, found, form)
    if found.lines():
        words("  `headgate state restore FILE` brings a backup back into an empty folder")
        sys.exit(EXIT_NO)


def _show(folder: Path, found: Found, form: Format) -> None:
    data = {
        "state": str(folder),
        "checked": {"endpoints": found.endpoints, "files": found.files},
        "database": found.database,
        "revisions": [{"endpoint": name, "revision": n, "what": what} for name, n, what in found.revisions],
        "files": found.damaged_files,
    }
    damages = found.lines()
    whole = f"{folder}: whole (endpoints: {found.endpoints}, files of models: {found.files})"
    lines = [f"damaged: {line}" for line in damages] or [whole]
    output.show(form, data, lambda _: lines, lambda _: damages)


@state.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@_folder
def backup(folder: Path, file: Path) -> None:
    """Write one file with everything that serving and history need, while the gateway goes on.

    A damaged state is not copied: exit code 1, with what is damaged. Keep the file as safe as the folder. The text of the
    first admin token is not in it.

    \b
    Example:
      headgate state backup headgate-monday.tar
    """
    from headgate.gateway import state_folder

    check_owner(folder)
    found = state_folder.backup(folder, file)
    if found:
        for line in found:
            words(f"headgate: {line}")
        words("  nothing was written: a backup of a damaged state would take the place of a good one")
        sys.exit(EXIT_NO)
    words(f"{folder} was copied to {file}")


@state.command()
@click.argument("file", metavar="FILE", type=click.Path(path_type=Path))
@_folder
def restore(folder: Path, file: Path) -> None:
    """Make an empty folder the state of a backup, or of the applied.json of a folder that lost its database.

    \b
    Example:
      headgate state restore headgate-monday.tar --state S2
      headgate serve --state S2
    """
    from headgate.gateway import state_folder

    _show(folder, state_folder.restore(file, folder), "table")
    words(f"start it with `headgate serve --state {folder}`")


@state.command()
@click.option("--dry-run", is_flag=True, help="Only say what would be removed.")
@_folder
@cli.output_options
def collect(folder: Path, form: Format, dry_run: bool) -> None:
    """Remove models and baselines that no revision, version name or change in progress references.

    A gateway does that by itself every five minutes. What a revision in the history references stays.

    \b
    Example:
      headgate state collect --dry-run
    """
    from headgate.gateway import state_folder

    check_owner(folder)
    found = asdict(state_folder.collect(folder, dry_run=dry_run))
    counts = {name: len(value) if isinstance(value, list) else value for name, value in found.items()}
    said = "would be removed" if dry_run else "removed"
    line = "{artifacts} models, {baselines} baselines, {blobs} files of models, {bytes} bytes".format(
        **counts
    )
    output.show(form, found, lambda _: [f"{folder}: {said}: {line}"], lambda _: _names(found))
    if found.get("busy"):
        words(
            "  not everything was looked at, because a backup or another command uses the folder: try again later"
        )


@state.command()
@_folder
def export(folder: Path) -> None:
    """Print every revision with its document, and the audit, as JSON, one object a line.

    A gateway drops both when they are old (--keep-history, --keep-audit): export them before that, if they must stay longer.

    \b
    Example:
      headgate state export > headgate-history.jsonl
    """
    from headgate.gateway import state_folder

    check_owner(folder)
    for one in state_folder.export(folder):
        click.echo(output.to_json(one, indent=None))


def _names(found: dict[str, Any]) -> list[str]:
    return [name for value in found.values() if isinstance(value, list) for name in value]
