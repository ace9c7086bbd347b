"""What a batch's derived columns looked back on is kept with its scores: a batch before it may come late."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Of what was scored before nothing is known, and nothing is said."""
    op.add_column("batches", sa.Column("looks_since", sa.DateTime(timezone=True)))
    op.add_column("batches", sa.Column("looked_back", sa.String(64)))
