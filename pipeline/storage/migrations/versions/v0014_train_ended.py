"""When the step train last ended, beside when it last trained: a night may have no occasion to train."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"


def upgrade() -> None:
    """Add the column; for the past, the last training is the last known end."""
    op.add_column("serving", sa.Column("train_ended_at", sa.DateTime(timezone=True)))
    op.execute("UPDATE serving SET train_ended_at = trained_at")
