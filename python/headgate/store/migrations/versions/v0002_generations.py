"""Bodies, documents once for each digest, and generations; for SQLite and PostgreSQL alike.

A revision's columns become one ``body`` beside its index columns, chained by digests. Rows of events and audit keep their ids as
generations, and the counter goes on above them. Stamps get microseconds, so that old and new ones sort as text.
"""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from headgate.store.migrations.first_spec import spec_of

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_OLD = ("endpoints", "revisions", "pins", "tokens", "idempotency", "events", "audit", "operations")
_BATCH = 100


def upgrade() -> None:
    """Forward only: a state folder is restored from a copy, not migrated back."""
    for index, table in (("ix_idempotency_expires", "idempotency"), ("ix_audit_endpoint_id", "audit")):
        op.drop_index(index, table)
    for name in _OLD:
        op.rename_table(name, f"old_{name}")
        if op.get_bind().dialect.name == "postgresql":
            # There the name of a key is taken as long as the old table has it.
            op.drop_constraint(f"pk_{name}", f"old_{name}", type_="primary")
    _create_endpoints()
    _create_access()
    _create_journal()
    _copy_rows()
    _copy_revisions()
    _copy_applied_files()
    op.drop_table("blocks")
    op.drop_table("applied_files")
    for name in _OLD:
        op.drop_table(f"old_{name}")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable)


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.BigInteger(), autoincrement=False, nullable=nullable)


def _create(name: str, key: tuple[str, ...], *columns: Any) -> None:
    op.create_table(name, *columns, sa.PrimaryKeyConstraint(*key, name=op.f(f"pk_{name}")))


def _create_endpoints() -> None:
    """What is served and what was served."""
    _create("generation", ("id",), _number("id"), _number("value"))
    _create(
        "endpoints",
        ("name",),
        _text("name"),
        _number("applied", nullable=True),
        _number("tail"),
        sa.Column("removed", sa.Boolean(), nullable=False),
        _number("generation"),
    )
    _create("documents", ("digest",), _text("digest"), sa.Column("content", sa.LargeBinary(), nullable=False))
    _create(
        "revisions",
        ("endpoint", "n"),
        _text("endpoint"),
        _number("n"),
        _number("parent", nullable=True),
        *map(_text, ("kind", "status", "who", "when", "reason", "document")),
        _text("source", nullable=True),
        _text("body"),
        _text("message", nullable=True),
        _text("digest"),
        _number("generation"),
        _number("ended", nullable=True),
        sa.ForeignKeyConstraint(["document"], ["documents.digest"], name=op.f("fk_revisions_document")),
    )
    _create("pins", ("endpoint", "version"), *map(_text, ("endpoint", "version", "digest", "when")))
    _create(
        "applied_documents",
        ("path", "endpoint", "digest"),
        *map(_text, ("path", "endpoint", "digest")),
        _number("generation"),
    )


def _create_access() -> None:
    """Who may call and what was answered."""
    _create(
        "tokens",
        ("id",),
        *map(_text, ("id", "sha256", "role", "name", "created")),
        *(_text(name, nullable=True) for name in ("expires", "last_used", "revoked")),
    )
    _create(
        "idempotency",
        ("principal", "route", "key"),
        *map(_text, ("principal", "route", "key", "request", "response", "expires")),
    )
    op.create_index(op.f("ix_idempotency_expires"), "idempotency", ["expires"], unique=False)


def _create_journal() -> None:
    """What happened."""
    _create(
        "events",
        ("generation",),
        *map(_text, ("type", "when")),
        _text("endpoint", nullable=True),
        _number("revision", nullable=True),
        *map(_text, ("who", "reason", "data")),
        _number("generation"),
    )
    _create(
        "audit",
        ("generation",),
        *map(_text, ("when", "who", "role", "action")),
        _text("endpoint", nullable=True),
        _number("revision", nullable=True),
        *map(_text, ("outcome", "reason", "detail")),
        _number("generation"),
    )
    op.create_index("ix_audit_endpoint_generation", "audit", ["endpoint", "generation"], unique=False)
    _create(
        "operations",
        ("id",),
        *map(_text, ("id", "endpoint", "kind", "status", "started")),
        *(_text(name, nullable=True) for name in ("finished", "result", "problem")),
    )


def _copy_rows() -> None:
    """What is copied as it is, but for the width of its stamps."""
    _copy("endpoints", "name applied tail removed", generation="0")
    _copy("pins", "endpoint version digest", "when")
    _copy("tokens", "id sha256 role name", "created expires last_used revoked")
    _copy("idempotency", "principal route key request", "expires", response=_json("response"))
    _copy("events", "type endpoint revision who reason", "when", data=_json("data"), generation="id")
    _copy(
        "audit",
        "who role action endpoint revision outcome reason",
        "when",
        detail=_json("detail"),
        generation="id",
    )
    texts = {name: _json(name) for name in ("result", "problem")}
    _copy("operations", "id endpoint kind status", "started finished", **texts)
    op.execute(
        "INSERT INTO generation (id, value) SELECT 1, coalesce(max(generation), 0) FROM "
        "(SELECT generation FROM events UNION ALL SELECT generation FROM audit) AS numbered"
    )


def _copy(table: str, same: str, stamps: str = "", **other: str) -> None:
    columns = {name: f'"{name}"' for name in same.split()}
    columns |= {name: f"substr(\"{name}\", 1, 19) || '.000000Z'" for name in stamps.split()}
    columns |= other
    names = ", ".join(f'"{name}"' for name in columns)
    op.execute(f"INSERT INTO {table} ({names}) SELECT {', '.join(columns.values())} FROM old_{table}")  # noqa: S608


def _json(name: str) -> str:
    return f'CAST("{name}" AS TEXT)'


_DOCUMENTS = sa.table("documents", sa.column("digest", sa.Text), sa.column("content", sa.LargeBinary))
_REVISIONS = sa.table(
    "revisions",
    *map(
        sa.column,
        ("endpoint", "n", "parent", "kind", "status", "who", "when", "reason", "document", "source"),
    ),
    *map(sa.column, ("body", "message", "digest", "generation", "ended")),
)


def _copy_revisions() -> None:
    bind = op.get_bind()
    columns = [_old_column(name) for name in _OLD_REVISION]
    query = (
        sa.select(*columns)
        .select_from(sa.table("old_revisions"))
        .order_by(sa.column("endpoint"), sa.column("n"))
    )
    documents: dict[str, bool] = {}
    digests: dict[str, str] = {}
    for rows in _batches(bind, query):
        made = []
        for row in rows:
            _copy_document(bind, documents, row.document_digest, row.document)
            body = _body(row)
            digest = _sha256(f"{digests.get(row.endpoint, '')}\n{body}".encode())
            digests[row.endpoint] = digest
            made.append(
                {
                    **{
                        name: getattr(row, name)
                        for name in ("endpoint", "n", "parent", "kind", "status", "who")
                    },
                    **{name: getattr(row, name) for name in ("reason", "source", "message")},
                    "when": _stamp(row.when),
                    "document": row.document_digest,
                    "body": body,
                    "digest": digest,
                    # 0: from before writes were numbered.
                    "generation": 0,
                    "ended": None if row.status == "proposed" else 0,
                }
            )
        bind.execute(sa.insert(_REVISIONS), made)


_OLD_REVISION = (
    *(
        "endpoint",
        "n",
        "parent",
        "kind",
        "status",
        "who",
        "when",
        "reason",
        "document",
        "document_digest",
        "source",
    ),
    *(
        "source_digest",
        "champion",
        "salt",
        "given",
        "attempt",
        "last_good",
        "since",
        "frozen",
        "blocks",
        "resolved",
    ),
    "message",
)


def _old_column(name: str) -> sa.ColumnElement[Any]:
    column: sa.ColumnElement[Any] = sa.column(name)
    if name in ("given", "frozen", "blocks", "resolved"):
        column = sa.cast(column, sa.Text)
    return column.label(name)


def _batches(bind: sa.Connection, query: sa.Select[Any]) -> Iterator[Any]:
    return bind.execute(query.execution_options(yield_per=_BATCH)).partitions()


def _copy_document(bind: sa.Connection, documents: dict[str, bool], digest: str, content: bytes) -> None:
    """Once for each digest; bytes that are whole take the place of damaged ones."""
    whole = _sha256(content) == digest
    if digest not in documents:
        bind.execute(sa.insert(_DOCUMENTS).values(digest=digest, content=content))
    elif whole and not documents[digest]:
        bind.execute(sa.update(_DOCUMENTS).where(_DOCUMENTS.c.digest == digest).values(content=content))
    documents[digest] = whole or documents.get(digest, False)


def _body(row: Any) -> str:
    """The body of format 1. A row that cannot be understood keeps no other from being brought along."""
    try:
        body = _compact(_understood(row))
        body.encode()  # half of a surrogate pair is no text
        return body
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        unreadable = f"the row of schema 0001 could not be read: {error!r}"
        return _compact({"format": 1, "endpoint": row.endpoint, "n": row.n, "unreadable": unreadable})


def _understood(row: Any) -> dict[str, Any]:
    spec, kept, root = spec_of(json.loads(row.resolved))
    frozen = None if row.frozen is None else json.loads(row.frozen)
    return {
        "format": 1,
        "endpoint": row.endpoint,
        "n": row.n,
        "parent": row.parent,
        "kind": row.kind,
        "who": row.who,
        "when": _stamp(row.when),
        "reason": row.reason,
        "document": {
            "digest": row.document_digest,
            "source": row.source,
            "source_digest": row.source_digest,
            "root": root,
        },
        "spec": spec,
        "kept": kept,
        "traffic": {
            "champion": row.champion,
            "last_good": row.last_good,
            "since": _stamp(row.since),
            "attempt": row.attempt,
            "table": {"salt": row.salt, "given": json.loads(row.given)},
            "frozen": None if frozen is None else {**frozen, "when": _stamp(frozen["when"])},
            "blocked": [{**block, "since": _stamp(block["since"])} for block in json.loads(row.blocks)],
        },
    }


def _copy_applied_files() -> None:
    """What was applied from a file: by the revisions that say so, and by the bytes of whole files that were the same."""
    op.execute(
        "INSERT INTO applied_documents (path, endpoint, digest, generation) SELECT DISTINCT path, endpoint, digest, 0 FROM ("
        "SELECT source AS path, endpoint, document_digest AS digest FROM old_revisions "
        "WHERE kind = 'apply' AND status = 'applied' AND source LIKE '/%' UNION ALL "
        "SELECT f.path, r.endpoint, r.document_digest FROM applied_files AS f JOIN old_revisions AS r "
        "ON f.digest = r.source_digest OR f.digest = r.document_digest WHERE r.kind = 'apply' AND r.status = 'applied'"
        ") AS applied"
    )


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def _stamp(text: str) -> str:
    return text[:19] + ".000000Z"
