"""What Alembic runs around the steps: on the connection that it is given, in its transaction."""

from alembic import context

from pipeline.storage.migrations import VERSION_TABLE

context.configure(connection=context.config.attributes["connection"], version_table=VERSION_TABLE)
context.run_migrations()
