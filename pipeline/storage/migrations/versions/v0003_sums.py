"""Counts over all batches, and indexes, so that overview and groups stay quick at a million records."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

KEYS = ("dataset", "kind", "driver", "state", "reviewer", "band", "model_version", "suppressed")


def upgrade() -> None:
    """Create the table from the tallies, and the indexes."""
    op.create_table(
        "tally_sums",
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reviewer", sa.String(250), nullable=False),
        sa.Column("band", sa.Integer, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("suppressed", sa.Boolean, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    keys = ", ".join(KEYS)
    op.execute(f"INSERT INTO tally_sums ({keys}, n) SELECT {keys}, sum(n) FROM tallies GROUP BY {keys}")
    op.create_index("ix_tally_sums", "tally_sums", list(KEYS), unique=True)
    op.create_index("ix_tallies_day", "tallies", ["day"])
    op.create_index("ix_queue_state", "queue", ["state", "kind", "dataset", "anomaly_id"])
    op.drop_index("ix_queue_signature", "queue")
    op.create_index("ix_queue_signature", "queue", ["dataset", "signature", "state", "severity"])
