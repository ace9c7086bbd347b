"""Days on which the delivery itself is wrong."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sample.records import DUPLICATED
from pipeline.sample.world import BAD_ROWS

BAD_SHARE = 0.015
RULES = ("missing_value", "out_of_range", "not_finite", "not_in_set", "pattern", "duplicate_key")


def altered(table: pa.Table, wrong: str) -> pa.Table:
    """Return the table as delivered on a day on which the schema is wrong."""
    if wrong == "lost_column":
        return table.drop_columns("fee")
    if wrong != "schema_drift":
        return table
    position = table.schema.get_field_index("items")
    table = table.set_column(position, "items", table["items"].cast(pa.int64()))
    tier = np.digitize(table["account_age_days"].to_numpy(), [365, 1460])
    return table.append_column("loyalty_tier", pa.array(("basic", "silver", "gold")).take(tier))


def spoiled(
    table: pa.Table, truth: pa.Table, batch_id: str, rng: np.random.Generator
) -> tuple[pa.Table, pa.Table]:
    """Return the table with rows that break the contract, and which rule each breaks.

    No anomaly is among these rows.
    """
    keys, places = table["transaction_id"], np.arange(len(table))
    ordinary = np.flatnonzero(~pc.is_in(keys, truth["record_key"].combine_chunks()).to_numpy())
    n_each = min(int(np.ceil(len(table) * BAD_SHARE / len(RULES))), len(ordinary) // (len(RULES) + 1))
    *spoiled, originals = rng.choice(ordinary, (len(RULES) + 1, n_each), replace=False)
    from_original = places.copy()
    from_original[spoiled[RULES.index("duplicate_key")]] = originals
    instead = {
        "missing_value": ("country", pa.scalar(None, pa.string())),
        "out_of_range": ("amount", pc.negate(table["amount"])),
        "not_finite": ("amount", np.inf),
        "not_in_set": ("channel", "manual"),
        "pattern": ("currency", "eur."),
        "duplicate_key": ("transaction_id", keys.take(from_original)),
    }
    for rule, rows in zip(RULES, spoiled, strict=True):
        name, values = instead[rule]
        column = pc.if_else(np.isin(places, rows), values, table[name])
        table = table.set_column(table.schema.get_field_index(name), table.schema.field(name), column)
    repeated = truth["record_key"].filter(pc.equal(truth["kind"], DUPLICATED)).to_pylist()
    bad = {
        "batch_id": [batch_id] * (len(RULES) * n_each + len(repeated)),
        "record_key": table["transaction_id"].take(np.concatenate(spoiled)).to_pylist() + repeated,
        "rule": list(np.repeat(RULES, n_each)) + ["duplicate_key"] * len(repeated),
    }
    return table, pa.table(bad, schema=BAD_ROWS)
