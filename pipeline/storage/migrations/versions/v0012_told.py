"""Which batches people were told of, so that a backlog is reported once, together."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Add the column; existing batches count as told."""
    op.add_column("queue_batches", sa.Column("told", sa.Boolean, nullable=False, server_default=sa.true()))
