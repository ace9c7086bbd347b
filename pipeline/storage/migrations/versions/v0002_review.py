"""The review queue; verdicts can be withdrawn, and the database keeps them from being changed."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

INSTANT = sa.DateTime(timezone=True)
FILTERED = ["dataset", "batch_id", "kind", "driver", "signature", "state", "reviewer", "band", "model_version", "suppressed"]  # fmt: skip


def upgrade() -> None:
    """Add to `verdicts` and create the tables of the queue."""
    op.add_column("verdicts", sa.Column("withdraws", sa.Integer))
    op.add_column("verdicts", sa.Column("settles", sa.Boolean, nullable=False, server_default=sa.false()))
    op.add_column("verdicts", sa.Column("act", sa.String(32), nullable=False, server_default=""))
    op.create_index("ix_verdicts_record", "verdicts", ["dataset", "anomaly_id"])
    op.create_index("ix_verdicts_act", "verdicts", ["act"])
    _keep_verdicts()
    _queue()
    _around_the_queue()


def _keep_verdicts() -> None:
    """Have the database keep verdicts append-only, whatever program writes: readers rely on it."""
    says = "verdicts are append-only: withdraw one with a new entry"
    if op.get_bind().dialect.name == "sqlite":
        for change in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER verdicts_no_{change.lower()} BEFORE {change} ON verdicts "
                f"BEGIN SELECT RAISE(ABORT, '{says}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION verdicts_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{says}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER verdicts_append_only BEFORE UPDATE OR DELETE ON verdicts "
        "FOR EACH ROW EXECUTE FUNCTION verdicts_append_only()"
    )


def _queue() -> None:
    op.create_table(
        "queue",
        sa.Column("anomaly_id", sa.String(32), primary_key=True),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("batch_id", sa.String(250), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reviewer", sa.String(250), nullable=False),
        sa.Column("decided_at", INSTANT),
        sa.Column("band", sa.Integer, nullable=False),
        sa.Column("suppressed", sa.Integer, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("row_number", sa.BigInteger, nullable=False),
        sa.Column("severity", sa.Float, nullable=False),
        sa.Column("anomaly_score", sa.Float, nullable=False),
        sa.Column("reconstruction", sa.Float, nullable=False),
        sa.Column("kl_divergence", sa.Float, nullable=False),
        sa.Column("kl_share", sa.Float),
        sa.Column("p_value", sa.Float, nullable=False),
        sa.Column("threshold", sa.Float, nullable=False),
        sa.Column("scored_at", INSTANT, nullable=False),
        sa.Column("key_start", sa.String(120), nullable=False),
        sa.Column("record_key", sa.Text, nullable=False),
        sa.Column("reasons", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    op.create_index("ix_queue_order", "queue", ["day", "severity", "anomaly_id", *FILTERED])
    op.create_index("ix_queue_batch", "queue", ["dataset", "batch_id"])
    op.create_index("ix_queue_key", "queue", ["key_start"])
    op.create_index("ix_queue_signature", "queue", ["dataset", "signature", "day"])


def _around_the_queue() -> None:
    op.create_table(
        "queue_batches",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("batch_id", sa.String(250), primary_key=True),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("scored_at", INSTANT, nullable=False),
        sa.Column("n_flagged", sa.BigInteger, nullable=False),
        sa.Column("n_unflagged", sa.BigInteger, nullable=False),
        sa.Column("n_sampled", sa.BigInteger, nullable=False),
        sa.Column("n_suppressed", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tallies",
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("batch_id", sa.String(250), nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reviewer", sa.String(250), nullable=False),
        sa.Column("band", sa.Integer, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("suppressed", sa.Boolean, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_tallies_batch", "tallies", ["dataset", "batch_id"])
    op.create_table(
        "scorings",
        sa.Column("dataset", sa.String(63), primary_key=True),
        sa.Column("anomaly_id", sa.String(32), primary_key=True),
        sa.Column("model_version", sa.Integer, primary_key=True),
        sa.Column("batch_id", sa.String(250), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("severity", sa.Float, nullable=False),
        sa.Column("anomaly_score", sa.Float, nullable=False),
        sa.Column("threshold", sa.Float, nullable=False),
        sa.Column("scored_at", INSTANT, nullable=False),
    )
    op.create_index("ix_scorings_batch", "scorings", ["dataset", "batch_id", "model_version"])
    op.create_table(
        "record_claims",
        sa.Column("anomaly_id", sa.String(32), primary_key=True),
        sa.Column("by", sa.String(250), nullable=False),
        sa.Column("expires_at", INSTANT, nullable=False),
    )
    op.create_table(
        "suppressions",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("dataset", sa.String(63), nullable=False),
        sa.Column("signature", sa.Text, nullable=False),
        sa.Column("conditions", sa.Text, nullable=False),
        sa.Column("ends_on", sa.String(10), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("by", sa.String(250), nullable=False),
        sa.Column("made_at", INSTANT, nullable=False),
        sa.Column("lifted_by", sa.String(250)),
        sa.Column("lifted_at", INSTANT),
    )
