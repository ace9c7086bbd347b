"""Days on which a column drifts: all values keep the contract, but some columns behave differently."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

SLOWER = 1.4  # times
UNMEASURED = 0.15  # share of values that are lost
EXCHANGED = 0.6  # share of contactless payments that a wallet makes


def drifted(table: pa.Table, what: str, rng: np.random.Generator) -> pa.Table:
    """Return the table as delivered on a day on which something drifts."""
    chance = rng.random(len(table))
    if what == "slower":
        slow = pc.multiply(table["authorisation_ms"], SLOWER).cast(pa.int32(), safe=False)
        return _with(table, "authorisation_ms", slow)
    if what == "unmeasured":
        lost = pa.array(chance < UNMEASURED)
        return _with(table, "distance_km", pc.if_else(lost, None, table["distance_km"]))
    if what == "other_mix":
        exchanged = pc.and_(pc.equal(table["channel"], "contactless"), pa.array(chance < EXCHANGED))
        return _with(table, "channel", pc.if_else(exchanged, "wallet", table["channel"]))
    if what == "decoupled":
        return _with(table, "monthly_spend", table["monthly_spend"].take(rng.permutation(len(table))))
    return table


def _with(table: pa.Table, name: str, values: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(name), table.schema.field(name), values)
