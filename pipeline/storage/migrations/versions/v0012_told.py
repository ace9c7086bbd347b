"""Which batches people were told of is kept with the queue: of a backlog they are told once, together."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Of what is there already everybody was told."""
    op.add_column("queue_batches", sa.Column("told", sa.Boolean, nullable=False, server_default=sa.true()))
