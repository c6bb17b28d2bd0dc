"""What retention drops leaves a trace: ranges of revisions, floors of journals; tokens, pins and applied documents get checksums."""

import hashlib
import json
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_KEPT_EVENTS = 100_000
_CHECKED = {
    "tokens": (("id",), ("id", "sha256", "role", "name", "created", "expires", "revoked")),
    "pins": (("endpoint", "version"), ("endpoint", "version", "digest", "when")),
    "applied_documents": (
        ("path", "endpoint", "digest"),
        ("path", "endpoint", "digest", "generation"),
    ),
}
"""The key and the checked columns of each table, as ``store.checksums`` reads them."""


def upgrade() -> None:
    """Forward only, as before."""
    op.create_table(
        "dropped_revisions",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("first", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last", sa.BigInteger(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "first", name=op.f("pk_dropped_revisions")),
    )
    op.create_table(
        "floors",
        sa.Column("journal", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("journal", name=op.f("pk_floors")),
    )
    op.create_index(op.f("ix_revisions_document"), "revisions", ["document"], unique=False)
    _events_floor()
    for name, (key, columns) in _CHECKED.items():
        op.add_column(name, sa.Column("checksum", sa.Text(), nullable=False, server_default=""))
        _add_checksums(name, key, columns)


def _events_floor() -> None:
    """Events were dropped before, and left no trace: a full table says that some were."""
    events = sa.table("events", sa.column("generation", sa.BigInteger))
    bind = op.get_bind()
    count, lowest = bind.execute(sa.select(sa.func.count(), sa.func.min(events.c.generation))).one()
    if count >= _KEPT_EVENTS:
        floors = sa.table("floors", sa.column("journal", sa.Text), sa.column("generation", sa.BigInteger))
        bind.execute(sa.insert(floors).values(journal="events", generation=lowest - 1))


def _add_checksums(name: str, key: tuple[str, ...], columns: tuple[str, ...]) -> None:
    bind = op.get_bind()
    table = sa.table(name, *map(sa.column, (*columns, "checksum")))
    for row in bind.execute(sa.select(*(table.c[column] for column in columns))).mappings().all():
        same = sa.and_(*(table.c[column] == row[column] for column in key))
        bind.execute(sa.update(table).where(same).values(checksum=_checksum([row[one] for one in columns])))


def _checksum(values: list[Any]) -> str:
    text = json.dumps(values, ensure_ascii=False, separators=(",", ":"))
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
