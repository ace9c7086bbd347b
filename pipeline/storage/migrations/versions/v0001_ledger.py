"""The ledger and the verdicts as they were before migrations; existing tables stay."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the missing tables."""
    op.create_table(
        "batches",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("batch_id", sa.String(250), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("signature", sa.String(64), nullable=False),
        sa.Column("contract_hash", sa.String(16), nullable=False),
        sa.Column("files", sa.JSON, nullable=False),
        sa.Column("notes", sa.JSON, nullable=False),
        sa.Column("set_aside", sa.JSON, nullable=False),
        sa.Column("n_read", sa.BigInteger, nullable=False),
        sa.Column("n_accepted", sa.BigInteger, nullable=False),
        sa.Column("newest_record_at", INSTANT),
        sa.Column("validated_at", INSTANT, nullable=False),
        sa.Column("model_version", sa.Integer),
        sa.Column("threshold", sa.Float),
        sa.Column("n_flagged", sa.BigInteger),
        sa.Column("scored_at", INSTANT),
        if_not_exists=True,
    )
    op.create_table(
        "claims",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("batch_id", sa.String(250), primary_key=True),
        sa.Column("claimed_at", INSTANT, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "periods",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("signature", sa.String(64), primary_key=True),
        sa.Column("counts", sa.JSON, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "serving",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("model_version", sa.Integer),
        sa.Column("trained_at", INSTANT),
        if_not_exists=True,
    )
    op.create_table(
        "verdicts",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("anomaly_id", sa.String(32), nullable=False),
        sa.Column("batch_id", sa.String(250), nullable=False),
        sa.Column("record_key", sa.Text, nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("by", sa.String(250), nullable=False),
        sa.Column("decided_at", INSTANT, nullable=False),
        if_not_exists=True,
    )
    op.create_index("ix_verdicts_dataset", "verdicts", ["dataset"], if_not_exists=True)
