"""What a batch's derived columns looked back on is kept with its scores: an earlier batch may come late."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Add the columns; they stay unknown for batches scored before."""
    op.add_column("batches", sa.Column("looks_since", sa.DateTime(timezone=True)))
    op.add_column("batches", sa.Column("looked_back", sa.String(64)))
