"""What Alembic runs to migrate: on the connection and in the transaction that `migrate.upgrade` gives it."""

from __future__ import annotations

from alembic import context

from checkpoint_stores.sql.schema import VERSION_TABLE, metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    render_as_batch=connection.dialect.name == "sqlite",
)
with context.begin_transaction():
    context.run_migrations()
