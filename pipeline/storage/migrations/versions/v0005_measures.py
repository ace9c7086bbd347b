"""What was measured of each scored batch, and its findings."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the table; batches scored before have no row until they are scored again."""
    op.create_table(
        "measures",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("batch_id", sa.String(250), primary_key=True),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("measured_at", INSTANT, nullable=False),
        sa.Column("measures", sa.JSON, nullable=False),
        sa.Column("findings", sa.JSON, nullable=False),
    )
    op.create_index("ix_measures_day", "measures", ["dataset", "day"])
