"""Runs migrations on the connection that ``database.migrate`` hands over. Next: ``versions``."""

from alembic import context

from headgate.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
