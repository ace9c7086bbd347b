"""The tables of the ledger.

Belongs here: columns and what they hold. Does not: making or changing the tables (migrations/), or any query
(ledger.py).
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

metadata = sa.MetaData()


class _Utc(sa.TypeDecorator[datetime]):
    """An instant. SQLite keeps wall-clock times only; ours are always in UTC."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Any) -> datetime | None:
        return _in_utc(value)

    def process_result_value(self, value: datetime | None, _dialect: Any) -> datetime | None:
        return _in_utc(value)


def _in_utc(value: datetime | None) -> datetime | None:
    if value is None or value.tzinfo is not None:
        return value and value.astimezone(UTC)
    return value.replace(tzinfo=UTC)


instant = _Utc()
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("dataset", sa.String(63), primary_key=True),
    sa.Column("batch_id", sa.String(250), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("reason", sa.Text, nullable=False, default=""),
    sa.Column("fingerprint", sa.String(64), nullable=False),
    sa.Column("signature", sa.String(64), nullable=False),
    sa.Column("contract_hash", sa.String(16), nullable=False),
    sa.Column("files", sa.JSON, nullable=False),
    sa.Column("notes", sa.JSON, nullable=False),
    sa.Column("set_aside", sa.JSON, nullable=False),
    sa.Column("n_read", sa.BigInteger, nullable=False),
    sa.Column("n_accepted", sa.BigInteger, nullable=False),
    sa.Column("newest_record_at", instant),
    sa.Column("validated_at", instant, nullable=False),
    sa.Column("model_version", sa.Integer),
    sa.Column("threshold", sa.Float),
    sa.Column("n_flagged", sa.BigInteger),
    sa.Column("scored_at", instant),
    sa.Column("above_usual", sa.Float),
    sa.Column("is_odd", sa.Boolean),
    sa.Column("looks_since", instant),
    sa.Column("looked_back", sa.String(64)),
    sa.Column("tone", sa.String(16)),
    sa.Column("headline", sa.Text),
)
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("dataset", sa.String(63), primary_key=True),
    sa.Column("batch_id", sa.String(250), primary_key=True),
    sa.Column("claimed_at", instant, nullable=False),
)
periods = sa.Table(
    "periods",
    metadata,
    sa.Column("dataset", sa.String(63), primary_key=True),
    sa.Column("signature", sa.String(64), primary_key=True),
    sa.Column("counts", sa.JSON, nullable=False),
)
serving = sa.Table(
    "serving",
    metadata,
    sa.Column("dataset", sa.String(63), primary_key=True),
    sa.Column("model_version", sa.Integer),
    sa.Column("trained_at", instant),
    sa.Column("train_ended_at", instant),
)
flag_rules = sa.Table(  # append-only: the rule by which a model version flags, from when on
    "flag_rules",
    metadata,
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("dataset", sa.String(63), nullable=False, index=True),
    sa.Column("model_version", sa.Integer, nullable=False),
    sa.Column("rule", sa.Text, nullable=False),
    sa.Column("before", sa.Text),
    sa.Column("threshold", sa.Float),  # null: each batch has its own
    sa.Column("threshold_before", sa.Float),
    sa.Column("by", sa.String(250), nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("at", instant, nullable=False),
)
