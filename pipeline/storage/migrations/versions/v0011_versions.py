"""What people found each version's flagged records to be, per batch; indexes for the overview."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Create the table from what was judged, and the indexes."""
    op.create_table(
        "version_tallies",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("batch_id", sa.String(250), primary_key=True),
        sa.Column("model_version", sa.Integer, primary_key=True),
        sa.Column("n_judged", sa.BigInteger, nullable=False),
        sa.Column("n_hits", sa.BigInteger, nullable=False),
    )
    keys = "dataset, batch_id, model_version"
    op.execute(
        f"INSERT INTO version_tallies ({keys}, n_judged, n_hits) SELECT s.dataset, s.batch_id, s.model_version, "
        "count(*), sum(CASE WHEN q.state IN ('anomaly', 'data_error') THEN 1 ELSE 0 END) "
        "FROM queue q JOIN scorings s ON s.dataset = q.dataset AND s.anomaly_id = q.anomaly_id "
        "WHERE q.state IN ('anomaly', 'data_error', 'normal', 'expected_change') AND s.kind = 'flagged' "
        "GROUP BY s.dataset, s.batch_id, s.model_version"
    )
    op.create_index("ix_scorings_version", "scorings", ["dataset", "model_version", "kind", "severity"])
    taken_back = sa.text("withdraws IS NOT NULL")
    op.create_index(
        "ix_verdicts_withdraws",
        "verdicts",
        ["withdraws"],
        sqlite_where=taken_back,
        postgresql_where=taken_back,
    )
