"""The tables of review, in the installation's database beside the ledger's.

Belongs here: columns and what they hold. Does not: making or changing the tables (migrations/), or any query.

    verdicts        append-only: who said what of which record, when; a row that
                    `withdraws` another takes it back
    queue           the records that wait for a person, or did: one row each, as last scored
    queue_batches   which batches the queue holds, as which model scored them
    tallies         how many similar rows the queue has, per batch: counts and pages without reading
                    the queue
    tally_sums      the same over all batches
    group_tallies   how many flagged records are odd in the same way, per batch
    version_tallies what people found each model version's flagged records to be, per batch and signature
    scorings        each model version's result for each record that was ever in the queue
    record_claims   who is looking at a record right now
    suppressions    rules that hide records until a day
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from pipeline.storage.ledger_schema import instant, metadata

NO_COLUMN = (
    "·"  # the signature of a flagged record that no column explains; the empty one is every signature's
)
_PAGED = (
    "day", "severity", "anomaly_score", "anomaly_id", "dataset", "batch_id", "kind", "driver", "oddness", "signature", "state", "reviewer",
    "band", "model_version", "suppressed",
)  # fmt: skip

verdicts = sa.Table(
    "verdicts",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dataset", sa.String(63), nullable=False, index=True),
    sa.Column("anomaly_id", sa.String(32), nullable=False),
    sa.Column("batch_id", sa.String(250), nullable=False),
    sa.Column("record_key", sa.Text, nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),  # an opinion, or "withdrawn"
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("by", sa.String(250), nullable=False),
    sa.Column("decided_at", instant, nullable=False),
    sa.Column("withdraws", sa.Integer),  # the number of the verdict that this entry takes back
    sa.Column("settles", sa.Boolean, nullable=False, server_default=sa.false()),  # a disagreement, on purpose
    sa.Column("act", sa.String(32), nullable=False, server_default=""),  # given together, undone together
    sa.Index("ix_verdicts_record", "dataset", "anomaly_id"),
    sa.Index("ix_verdicts_act", "act"),
    sa.Index(
        "ix_verdicts_withdraws",
        "withdraws",
        sqlite_where=sa.text("withdraws IS NOT NULL"),
        postgresql_where=sa.text("withdraws IS NOT NULL"),
    ),
)
queue = sa.Table(
    "queue",
    metadata,
    sa.Column("anomaly_id", sa.String(32), primary_key=True),
    sa.Column("dataset", sa.String(63), nullable=False),
    sa.Column("batch_id", sa.String(250), nullable=False),
    # of the batch's newest record, UTC; at the latest that of its validation
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),  # flagged | sampled
    sa.Column("driver", sa.Text, nullable=False),  # the column with the largest share
    sa.Column("oddness", sa.String(16), nullable=False, server_default=""),  # how it is odd; "": not flagged
    # the columns with reasons, and in which direction; or NO_COLUMN
    sa.Column("signature", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),  # open | an opinion | conflict
    sa.Column("reviewer", sa.String(250), nullable=False),  # who gave the newest verdict
    sa.Column("decided_at", instant),
    sa.Column("band", sa.Integer, nullable=False),  # the largest of BANDS that the severity reaches
    sa.Column("suppressed", sa.Integer, nullable=False),  # number of the rule; 0: none
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("row_number", sa.BigInteger, nullable=False),
    sa.Column("severity", sa.Float, nullable=False),
    sa.Column("anomaly_score", sa.Float, nullable=False),
    sa.Column("reconstruction", sa.Float, nullable=False),
    sa.Column("kl_divergence", sa.Float, nullable=False),
    sa.Column("kl_weight", sa.Float),  # null: scored before this column existed
    sa.Column("kl_share", sa.Float),
    sa.Column("p_value", sa.Float, nullable=False),
    sa.Column("threshold", sa.Float, nullable=False),
    sa.Column("scored_at", instant, nullable=False),
    sa.Column("key_start", sa.String(120), nullable=False),  # the start of record_key, to search by
    sa.Column("record_key", sa.Text, nullable=False),
    sa.Column("reasons", sa.Text, nullable=False),  # JSON, as in the table `scores`
    sa.Column("terms", sa.Text, nullable=False, server_default="[]"),  # JSON, as in the table `scores`
    sa.Column("record", sa.Text, nullable=False),  # JSON: the original columns
    # a page is read from this index alone, in its order; on SQLite a search, too, but PostgreSQL's index rows
    # have no room for a key
    sa.Index("ix_queue_order", *_PAGED).ddl_if(dialect="postgresql"),
    sa.Index("ix_queue_page", *_PAGED, "key_start").ddl_if(dialect="sqlite"),
    sa.Index("ix_queue_batch", "dataset", "batch_id"),
    # only with such an index does PostgreSQL find texts by their beginning in any locale
    sa.Index("ix_queue_key", "key_start", postgresql_ops={"key_start": "varchar_pattern_ops"}),
    sa.Index(
        "ix_queue_id", "anomaly_id", postgresql_ops={"anomaly_id": "varchar_pattern_ops"}
    ).ddl_if(dialect="postgresql"),  # SQLite uses the primary key's
    sa.Index("ix_queue_signature", "dataset", "signature", "state", "severity"),
    sa.Index(
        "ix_queue_hidden", "suppressed", sqlite_where=sa.text("suppressed != 0"), postgresql_where=sa.text("suppressed != 0")
    ),
    sa.Index("ix_queue_state", "state", "kind", "dataset", "anomaly_id"),
)  # fmt: skip
queue_batches = sa.Table(
    "queue_batches",
    metadata,
    sa.Column("dataset", sa.String(63), primary_key=True),
    sa.Column("batch_id", sa.String(250), primary_key=True),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("scored_at", instant, nullable=False),
    sa.Column("n_flagged", sa.BigInteger, nullable=False),
    sa.Column("n_unflagged", sa.BigInteger, nullable=False),
    sa.Column("n_sampled", sa.BigInteger, nullable=False),
    sa.Column("n_suppressed", sa.BigInteger, nullable=False),
    sa.Column("told", sa.Boolean, nullable=False, server_default=sa.true()),  # its digest went out
)


def _counted() -> list[sa.Column[Any]]:
    """Return the columns that rows are counted by, except the dataset, and the count."""
    return [
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("driver", sa.Text, nullable=False),
        sa.Column("oddness", sa.String(16), nullable=False, server_default=""),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reviewer", sa.String(250), nullable=False),
        sa.Column("band", sa.Integer, nullable=False),
        sa.Column("model_version", sa.Integer, nullable=False),
        sa.Column("suppressed", sa.Boolean, nullable=False),
        sa.Column("n", sa.BigInteger, nullable=False),
    ]


tallies = sa.Table(
    "tallies",
    metadata,
    sa.Column("dataset", sa.String(63), nullable=False),
    sa.Column("batch_id", sa.String(250), nullable=False),
    sa.Column("day", sa.String(10), nullable=False),
    *_counted(),
    sa.Index("ix_tallies_batch", "dataset", "batch_id"),
    sa.Index("ix_tallies_day", "day"),
)
tally_sums = sa.Table(
    "tally_sums",
    metadata,
    sa.Column("dataset", sa.String(63), nullable=False),
    *_counted(),
    sa.Index(
        "ix_tally_sums",
        "dataset",
        "kind",
        "driver",
        "oddness",
        "state",
        "reviewer",
        "band",
        "model_version",
        "suppressed",
        unique=True,
    ),
)
group_tallies = sa.Table(  # of flagged rows that no rule hides
    "group_tallies",
    metadata,
    sa.Column("dataset", sa.String(63), nullable=False),
    sa.Column("batch_id", sa.String(250), nullable=False),
    sa.Column("day", sa.String(10), nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("n", sa.BigInteger, nullable=False),
    sa.Column("severest", sa.Float, nullable=False),
    sa.Index("ix_group_tallies_batch", "dataset", "batch_id"),
    sa.Index("ix_group_tallies_signature", "dataset", "signature"),
)
version_tallies = sa.Table(  # of the records that a version flagged, even if another scored them since
    "version_tallies",
    metadata,
    sa.Column("dataset", sa.String(63), nullable=False),
    sa.Column("batch_id", sa.String(250), nullable=False),
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("signature", sa.Text, nullable=False),  # as in the queue, by the version that scored it last
    sa.Column("n_judged", sa.BigInteger, nullable=False),  # worth the time or not; unsure is neither
    sa.Column("n_hits", sa.BigInteger, nullable=False),  # worth the time
    sa.Index("ix_version_tallies_batch", "dataset", "batch_id"),
)
scorings = sa.Table(
    "scorings",
    metadata,
    sa.Column("dataset", sa.String(63), primary_key=True),
    sa.Column("anomaly_id", sa.String(32), primary_key=True),
    sa.Column("model_version", sa.Integer, primary_key=True),
    sa.Column("batch_id", sa.String(250), nullable=False),
    sa.Column("kind", sa.String(8), nullable=False),
    sa.Column("severity", sa.Float, nullable=False),
    sa.Column("anomaly_score", sa.Float, nullable=False),
    sa.Column("threshold", sa.Float, nullable=False),
    sa.Column("scored_at", instant, nullable=False),  # first, where this version scored it again
    sa.Index("ix_scorings_batch", "dataset", "batch_id", "model_version"),
    sa.Index("ix_scorings_version", "dataset", "model_version", "kind", "severity"),
)
record_claims = sa.Table(
    "record_claims",
    metadata,
    sa.Column("anomaly_id", sa.String(32), primary_key=True),
    sa.Column("by", sa.String(250), nullable=False),
    sa.Column("expires_at", instant, nullable=False),
)
suppressions = sa.Table(
    "suppressions",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dataset", sa.String(63), nullable=False),
    sa.Column("signature", sa.Text, nullable=False),
    sa.Column("conditions", sa.Text, nullable=False),  # JSON: {column: value} that a record must have
    sa.Column("ends_on", sa.String(10), nullable=False),  # the last day
    sa.Column("note", sa.Text, nullable=False),
    sa.Column("by", sa.String(250), nullable=False),
    sa.Column("made_at", instant, nullable=False),
    sa.Column("lifted_by", sa.String(250)),
    sa.Column("lifted_at", instant),
)
