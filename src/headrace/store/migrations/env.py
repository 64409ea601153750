"""Run by Alembic: it hands over the connection that `migrate` opened."""

from alembic import context

from headrace.store.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
with context.begin_transaction():
    context.run_migrations()
