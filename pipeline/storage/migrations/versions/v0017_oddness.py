"""How each record is odd, in the queue and in its counts, so that queries can ask for it."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"

CHUNK = 400  # records at a time: reasons of a million would not fit into memory
PAGED = [
    "day", "severity", "anomaly_score", "anomaly_id", "dataset", "batch_id", "kind", "driver", "oddness", "signature", "state",
    "reviewer", "band", "model_version", "suppressed",
]  # fmt: skip
SUMMED = ["dataset", "kind", "driver", "oddness", "state", "reviewer", "band", "model_version", "suppressed"]


def upgrade() -> None:
    """Add the column, fill it from the reasons of flagged records, and count again."""
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    name = "ix_queue_page" if is_sqlite else "ix_queue_order"
    op.drop_index(name, "queue", if_exists=True)
    op.drop_index("ix_tally_sums", "tally_sums", if_exists=True)
    for table in ("queue", "tallies", "tally_sums"):
        op.add_column(table, sa.Column("oddness", sa.String(16), nullable=False, server_default=""))
    _fill()
    _count()
    op.create_index(name, "queue", [*PAGED, "key_start"] if is_sqlite else PAGED)
    op.create_index("ix_tally_sums", "tally_sums", SUMMED, unique=True)


def _fill() -> None:
    connection, last = op.get_bind(), ""
    some = sa.text(
        "SELECT anomaly_id, kind, signature, reasons FROM queue WHERE anomaly_id > :last "
        "ORDER BY anomaly_id LIMIT :n"
    )
    these = sa.text("UPDATE queue SET oddness = :oddness WHERE anomaly_id IN :ids")
    these = these.bindparams(sa.bindparam("ids", expanding=True))
    while rows := connection.execute(some, {"last": last, "n": CHUNK}).all():
        alike = defaultdict(list)
        for row in rows:
            if row.kind == "flagged" or row.signature:  # flagged, or cleared since; not of the random sample
                alike[_oddness(json.loads(row.reasons))].append(row.anomaly_id)
        for oddness, ids in alike.items():
            connection.execute(these, {"oddness": oddness, "ids": ids})
        last = rows[-1].anomaly_id


def _count() -> None:
    keys, summed = ", ".join(["batch_id", "day", *SUMMED[:-1]]), ", ".join(SUMMED)
    op.execute("DELETE FROM tallies")
    op.execute(
        f"INSERT INTO tallies ({keys}, suppressed, n) SELECT {keys}, suppressed != 0, count(*) FROM queue "
        f"GROUP BY {keys}, suppressed != 0"
    )
    op.execute("DELETE FROM tally_sums")
    op.execute(f"INSERT INTO tally_sums ({summed}, n) SELECT {summed}, sum(n) FROM tallies GROUP BY {summed}")


def _oddness(reasons: Iterable[dict[str, Any]]) -> str:
    """Classify as the queue does from this version on (review/queued.py)."""
    first = next(iter(reasons), None)
    if first is None:
        return "no_column"
    observed, expected = first["observed"], first["expected"]
    if observed == "missing":
        return "missing"
    if first.get("unknown"):
        return "unknown_category"
    value = _number(observed)
    is_within = _number(first["low"]) <= value <= _number(first["high"])
    if is_within or observed in {expected, expected.rpartition(" (")[0]}:
        return "together"
    above = value - _number(expected)
    if first["low"] is None or math.isnan(above):
        return "other_category"
    return "above" if above >= 0 else "below"


def _number(value: float | str | None) -> float:
    try:
        return math.nan if value is None else float(value)
    except ValueError:
        return math.nan
