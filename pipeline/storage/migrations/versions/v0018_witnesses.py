"""Precision's counts by signature, too: records that are odd alike are not as many witnesses."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"


def upgrade() -> None:
    """Make the table anew from what was judged."""
    op.drop_table("version_tallies")
    op.create_table(
        "version_tallies",
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("batch_id", sa.String(250), nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("n_judged", sa.BigInteger, nullable=False),
        sa.Column("n_hits", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_version_tallies_batch", "version_tallies", ["dataset", "batch_id"])
    keys = "s.dataset, s.batch_id, s.model_version, q.signature"
    op.execute(
        f"INSERT INTO version_tallies ({keys.replace('s.', '').replace('q.', '')}, n_judged, n_hits) SELECT {keys}, "
        "count(*), sum(CASE WHEN q.state IN ('anomaly', 'data_error') THEN 1 ELSE 0 END) "
        "FROM queue q JOIN scorings s ON s.dataset = q.dataset AND s.anomaly_id = q.anomaly_id "
        "WHERE q.state IN ('anomaly', 'data_error', 'normal', 'expected_change') AND s.kind = 'flagged' "
        f"GROUP BY {keys}"
    )
