"""How Alembic reaches the database: through the connection that `store.upgrade` hands over, lock taken."""

from alembic import context

from orchestrator.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter a column in place; there Alembic rebuilds the table.
    render_as_batch=True,
)
context.run_migrations()
