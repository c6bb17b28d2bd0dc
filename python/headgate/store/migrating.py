"""Migrations of the schema, by Alembic. Next: ``migrations/versions``."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from alembic.util.exc import CommandError
from sqlalchemy import Connection

from headgate.errors import StorageFailed

_MIGRATIONS = Path(__file__).with_name("migrations")


def migration_config() -> Config:
    """Alembic's configuration, without a file on disk."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def newest_migration() -> str | None:
    """The id of the newest migration in this package."""
    return ScriptDirectory.from_config(migration_config()).get_current_head()


def upgrade(connection: Connection) -> None:
    """Takes every step from the schema that is there to the newest one, in the transaction of ``connection``."""
    config = migration_config()
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageFailed(
            f"the database schema is not one this version of Headgate knows ({error}): it was written by a newer "
            "version; upgrade Headgate or restore the state folder's copy"
        ) from error
