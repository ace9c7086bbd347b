"""Groups counted per batch; on PostgreSQL, indexes for the beginnings of keys and ids."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Create the table from the queue, and the indexes."""
    op.create_table(
        "group_tallies",
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("batch_id", sa.String(250), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
        sa.Column("severest", sa.Float, nullable=False),
    )
    keys = "dataset, batch_id, day, signature, state"
    op.execute(
        f"INSERT INTO group_tallies ({keys}, n, severest) SELECT {keys}, count(*), max(severity) FROM queue "
        f"WHERE kind = 'flagged' AND suppressed = 0 GROUP BY {keys}"
    )
    op.create_index("ix_group_tallies_batch", "group_tallies", ["dataset", "batch_id"])
    op.create_index("ix_group_tallies_signature", "group_tallies", ["dataset", "signature"])
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index("ix_queue_key", "queue")
        for name, column in (("ix_queue_key", "key_start"), ("ix_queue_id", "anomaly_id")):
            op.create_index(name, "queue", [column], postgresql_ops={column: "varchar_pattern_ops"})
