"""How Alembic reaches the database: through the connection that `store.migrate` hands over, lock taken.

It is not told of `schema.metadata`: a revision that was released must not change with the code of today.
"""

from alembic import context

# SQLite cannot alter a column in place; with batches Alembic rebuilds the table there.
context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
context.run_migrations()
