"""What Alembic runs around the steps: on a connection that it is handed, in that connection's transaction."""

from alembic import context

from pipeline.storage.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
