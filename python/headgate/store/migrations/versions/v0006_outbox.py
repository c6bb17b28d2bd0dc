"""Messages to webhooks that wait to be delivered."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Forward only, as before."""
    op.create_table(
        "outbox",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("webhook", sa.Text(), nullable=False),
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=True),
        sa.Column("timeout_ms", sa.BigInteger(), nullable=False),
        sa.Column("written", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("attempts", sa.BigInteger(), nullable=False),
        sa.Column("due", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("endpoint", "webhook", "generation", name=op.f("pk_outbox")),
    )
    # The oldest rows of all go first when there are too many, or when they are too old.
    op.create_index(op.f("ix_outbox_written"), "outbox", ["written"])
