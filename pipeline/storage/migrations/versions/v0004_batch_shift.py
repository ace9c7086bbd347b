"""Whether a batch was odd as a whole."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Add the columns; they stay unknown for batches scored before."""
    op.add_column("batches", sa.Column("above_usual", sa.Float))
    op.add_column("batches", sa.Column("is_odd", sa.Boolean))
