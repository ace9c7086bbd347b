"""A shop that takes deliveries of orders, good ones and faulty ones."""

from __future__ import annotations

import html
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import steps
from pipeline.incoming.redelivered import AGAIN
from pipeline.steps.receipts import BatchReceipt

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

N, LEARNED = 60, 2000
COLUMNS = """\
columns:
  id: {type: string}
  at: {type: timestamp_utc, required: true, role: context}
  amount: {type: float, role: numeric, required: true, min: 0, max: 1000}
  weight: {type: float, role: numeric}
  pieces: {type: int, role: numeric}
  price: {type: "decimal(10,2)", role: numeric}
  kind: {type: string, role: categorical}
  shop: {type: string, role: categorical}
"""
SETTINGS = """\
dataset: orders
incoming: {path: ../incoming/orders, settle_seconds: 0}
key: id
time: at
batch: {max_set_aside: 0.1}
train: {min_records: 50, recipe: {steps: 40, n_members: 2}}
"""


def orders(n: int = N, first: int = 0) -> pa.Table:
    """n good records."""
    rng = np.random.default_rng(first)
    start = datetime(2026, 3, 1, tzinfo=UTC)
    return pa.table({
        "id": [f"o{first + i}" for i in range(n)],
        "at": pa.array([start + timedelta(minutes=i) for i in range(n)], pa.timestamp("us", "UTC")),
        "amount": rng.uniform(1, 999, n),
        "weight": rng.normal(size=n),
        "pieces": pa.array(rng.integers(1, 9, n), pa.int64()),
        "price": pa.array([Decimal(int(v)) / 100 for v in rng.integers(1, 10**6, n)], pa.decimal128(10, 2)),
        "kind": pa.array(rng.choice(["in", "out"], n)),
        "shop": pa.array([f"s{i}" for i in rng.integers(0, 3, n)]),
    })


def changed(
    name: str, values: Any, type_: pa.DataType | None = None, *, table: pa.Table | None = None
) -> pa.Table:
    """Good records with one column replaced (a list: its first values only)."""
    table = orders() if table is None else table
    i = table.schema.get_field_index(name)
    if isinstance(values, list):
        column = table[name].to_pylist()
        values = pa.array([*values, *column[len(values) :]], type_ or table.schema.field(i).type)
    return table.set_column(i, name, values)


class Shop:
    """One dataset that takes deliveries."""

    def __init__(self, place: Place) -> None:
        self.place = place
        place.incoming.mkdir(parents=True, exist_ok=True)
        place.yaml.parent.mkdir(parents=True, exist_ok=True)
        place.yaml.write_text(SETTINGS + COLUMNS, encoding="utf-8")

    def land(self, delivery: pa.Table | bytes, batch_id: str = "b1") -> Path:
        file = self.place.incoming / f"{batch_id}.parquet"
        file.write_bytes(delivery) if isinstance(delivery, bytes) else pq.write_table(delivery, file)
        return file

    def check(self, delivery: pa.Table | bytes, batch_id: str = "b1") -> BatchReceipt:
        """Land and validate one batch; whatever it was, no record is lost or doubled."""
        earlier = self.records(batch_id)
        self.land(delivery, batch_id)
        (receipt,) = self.place.validate(batch_id).batches
        return self.sound(receipt, earlier)

    def sound(self, receipt: BatchReceipt, earlier: pa.Table | None = None) -> BatchReceipt:
        records = self.records(receipt.batch_id)
        if receipt.outcome == "accepted":
            assert receipt.n_read == receipt.n_accepted + receipt.n_set_aside == records.num_rows
            assert records["row_number"].to_pylist() == list(range(records.num_rows))
            assert pc.sum(records["set_aside"]).as_py() in {receipt.n_set_aside, None}
        else:  # what was published before a refused delivery stays as it was
            assert records.equals(self.records("none") if earlier is None else earlier)
            assert receipt.n_accepted in {0, None}
        assert self.place.left_over() == []
        return receipt

    def refused(self, delivery: pa.Table | bytes, *said: str) -> None:
        """The batch is refused, once and for all until it changes, and the reason says all this."""
        receipt = self.check(delivery)
        assert receipt.outcome == "refused"
        here = self.place.here
        page = (here.page(here.dataset("orders"), "b1") / "index.html").read_text(encoding="utf-8")
        assert "✕ Refused" in page
        for part in said:
            assert part in receipt.reason
        for words in () if ", promised: " in receipt.reason else said:  # a broken rule is laid out as a table
            assert words in html.unescape(page)
        (again,) = self.place.validate().batches
        assert again.outcome == "unchanged"
        assert steps.discover(self.place.here, "orders") == []

    def accepted(self, delivery: pa.Table, **set_aside: int) -> BatchReceipt:
        """The batch is accepted but for so many records for a reason."""
        receipt = self.check(delivery)
        assert receipt.outcome == "accepted", receipt.reason
        found = self.state().set_aside
        assert found == {reason.replace("__", ":"): n for reason, n in set_aside.items()}
        return receipt

    def records(self, batch_id: str = "b1") -> pa.Table:
        if "records" not in self.place.versions():
            return pa.table({name: pa.array([], pa.int64()) for name in ("row_number", "set_aside")})
        found = self.place.table("records")
        return found.filter(pc.equal(found["batch_id"], batch_id))

    def column(self, name: str) -> list[Any]:
        return [row[name] for row in self.records()["record"].to_pylist()]

    def state(self, batch_id: str = "b1") -> Any:
        return self.place.here.ledger.newest("orders", batch_id)

    def noted(self) -> list[str]:
        """What was noted on the batch, but that it was delivered again."""
        return [note for note in self.state().notes if not note.startswith(AGAIN)]
