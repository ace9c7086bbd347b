"""What a record's score is made of, beside its reasons."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Add the columns; older records have neither until their batch is scored again."""
    op.add_column("queue", sa.Column("kl_weight", sa.Float))
    op.add_column("queue", sa.Column("terms", sa.Text, nullable=False, server_default="[]"))
