"""The answer at the top of a scored batch's page is kept beside its counts, for a list of batches."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"


def upgrade() -> None:
    """Add the columns; they stay unknown for batches whose page was written before."""
    op.add_column("batches", sa.Column("tone", sa.String(16)))
    op.add_column("batches", sa.Column("headline", sa.Text))
