"""A believable card-payment feed to try vaewatch on: one Parquet batch per day, every anomaly labelled.

Belongs here: how the sample data come about, and the truth about them. Does not: the contract for the feed (a
YAML file beside the others) and anything that reads it.

    out/incoming/payments/2026-01-01.parquet   one file per day
    out/truth/payments.parquet                 batch_id, record_key, kind, column (those at odds)
    out/truth/payments_bad_rows.parquet        batch_id, record_key, rule (on the bad_rows day)

A day is drawn from (seed, day number), in blocks of `BLOCK_ROWS` that become row groups: the same plan gives
the same bytes, a longer plan begins with a shorter one's days, and memory does not grow with the size of a
day. Daily and weekly rhythm, card and country give the time, category and channel; those and the holder's
affluence give the amount; fee, items, spending and delay follow. Prices rise by 0.1 % a day. The history
holds anomalies, too.

A contract for this feed would state:
    transaction_id       key, unique, `^[0-9]{8}-[0-9]{9}$`
    time                 required, UTC, on the day that names the batch
    card_id              identifier, required, `^c[0-9]{9}$`
    merchant_category    required, one of CATEGORY_NAMES
    country, channel     required, one of COUNTRIES, of CHANNELS
    currency             required, `^[A-Z]{3}$`
    amount               in euro, required, finite, 0 to 100 000
    fee                  in euro, required, 0 to 2 500
    distance_km          0 to 20 040; missing where the channel is online, and in 2 % elsewhere
    seconds_since_last   from 0; missing for a card's first payment
    items                required, 1 to 1 000
    account_age_days     required, 0 to 3 650
    is_recurring         required
    credit_limit         0 to 20 000; missing in 3 %
    monthly_spend        required, 0 to 20 000
    authorisation_ms     0 to 60 000; missing in 2 %
    terminal_uptime_h    0 to 25, hours since the restart at midnight; missing where the channel is online
    exchange_rate        required, euro per unit of the currency, 0.01 to 2
    a batch              has rows and every required column

Hostile days come in this order, evenly over the last third (over the last six days of a plan shorter than
18), and end before the last day. The receipt names their batches; the truth leaves out the batches that can't
be scored:
    schema_drift   `items` is int64 and a column `loyalty_tier` appears: readable, nothing is lost
    truncated      the file breaks off halfway: the whole batch is refused
    bad_rows       1.5 % of the rows break the contract: they are set aside, the others are scored
    lost_column    `fee` is gone: the whole batch is refused
    empty          a well-formed file without rows

Drift, if the plan asks for it: on four days in the last third, every value is within the contract, but the
columns named in DRIFTS behave differently. The receipt names their batches.
    slower         every authorisation takes 1.4 times as long
    unmeasured     15 % of the distances are lost
    other_mix      a wallet makes 60 % of the contactless payments
    decoupled      the monthly spending is another card's
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.sample.drift import drifted
from pipeline.sample.hostile import RULES, altered, spoiled
from pipeline.sample.plan import DEFAULT_PLAN, DRIFTS, NOT_SCORED, SamplePlan
from pipeline.sample.records import DUPLICATED, KINDS, Cards, records_of_day
from pipeline.sample.world import BAD_ROWS, RECORDS, REPETITIVE, TRUTH

__all__ = ["DRIFTS", "DUPLICATED", "KINDS", "NOT_SCORED", "RULES", "SamplePlan", "SampleReceipt", "generate"]


@dataclass(frozen=True)
class SampleReceipt:
    """What was written: ids, counts, paths. Batches that can't be scored add no records and no anomalies."""

    incoming: Path
    truth: Path
    bad_rows: Path
    batch_ids: tuple[str, ...]
    hostile: dict[str, str]  # what is wrong -> batch_id
    n_records: int
    n_anomalies: dict[str, int]  # by kind; a record delivered twice counts once
    n_bad_rows: dict[str, int]  # by rule
    drift: dict[str, str]  # what drifts -> batch_id


def generate(out: Path, plan: SamplePlan = DEFAULT_PLAN) -> SampleReceipt:
    """Write the feed and the truth about it under `out`; a second run replaces."""
    incoming, truth_path = out / "incoming" / "payments", out / "truth" / "payments.parquet"
    bad_path = truth_path.with_name("payments_bad_rows.parquet")
    wrong_on = {day: name for name, day in plan.hostile_days().items()}
    cards, n_records, kinds, rules = Cards.draw(plan), 0, Counter[str](), Counter[str]()
    with _published(truth_path, TRUTH) as truth_file, _published(bad_path, BAD_ROWS) as bad_file:
        for day in range(plan.days):
            for n_rows, truth, bad in _write_day(incoming, plan, cards, day, wrong_on.get(day, "")):
                n_records += n_rows
                for table, file in ((truth, truth_file), (bad, bad_file)):
                    if len(table):
                        file.write_table(table)
                kinds.update(truth["kind"].to_pylist())
                rules.update(bad["rule"].to_pylist())
    return SampleReceipt(
        incoming=incoming,
        truth=truth_path,
        bad_rows=bad_path,
        batch_ids=tuple(map(plan.batch_id, range(plan.days))),
        hostile={name: plan.batch_id(day) for day, name in wrong_on.items()},
        n_records=n_records,
        n_anomalies={kind: kinds[kind] for kind in KINDS},
        n_bad_rows={rule: rules[rule] for rule in RULES},
        drift={name: plan.batch_id(day) for name, day in plan.drift_days().items()},
    )


def _write_day(
    incoming: Path, plan: SamplePlan, cards: Cards, day: int, wrong: str
) -> Iterator[tuple[int, pa.Table, pa.Table]]:
    """Write one batch; yield size, anomalies and bad rows of each block that can be scored."""
    schema = altered(RECORDS.empty_table(), wrong).schema
    drifts = next((name for name, on in plan.drift_days().items() if on == day), "")
    kept = 0.5 if wrong == "truncated" else 1.0
    with _published(incoming / f"{plan.batch_id(day)}.parquet", schema, kept) as file:
        for block, (table, truth) in enumerate(records_of_day(plan, cards, day) if wrong != "empty" else ()):
            bad = BAD_ROWS.empty_table()
            if drifts:
                table = drifted(table, drifts, plan.rng("drift", day, block))
            if wrong == "bad_rows":
                table, bad = spoiled(table, truth, plan.batch_id(day), plan.rng("bad_rows", day, block))
            file.write_table(altered(table, wrong), row_group_size=len(table))
            if wrong not in NOT_SCORED:
                yield len(table), truth, bad


@contextmanager
def _published(target: Path, schema: pa.Schema, kept: float = 1.0) -> Iterator[pq.ParquetWriter]:
    """Write beside the target, then rename over it; with `kept` below one, break the file off."""
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.with_suffix(f".{uuid4().hex}.draft")
    try:
        with pq.ParquetWriter(
            draft, schema, compression="zstd", use_dictionary=REPETITIVE, write_page_checksum=True
        ) as file:
            yield file
        os.truncate(draft, int(draft.stat().st_size * kept))
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)
