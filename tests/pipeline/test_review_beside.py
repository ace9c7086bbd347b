"""What a record is compared with: its neighbours, a column's usual values, the nearest normal records."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.columns import Derived
from pipeline.config.dataset import Dataset
from pipeline.detection.measures import ColumnDrift, Measures
from pipeline.detection.numbers import Number
from pipeline.detection.reference import NumberShape
from pipeline.errors import NotReady
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.records.verdicts import anomaly_id
from pipeline.review import cells, compare, queue, record, usual, versions
from pipeline.review.filling import catch_up
from pipeline.review.filters import Filters
from pipeline.review.queued import Whole
from pipeline.storage.ledger import BatchState

from .published import N
from .published import payments_yaml as payments_yaml  # fixtures
from .published import publish as publish
from .review_page import as_role


def test_neighbours_are_the_entitys_records_around_it(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """What the same card did before and after, across batches."""
    for day in ("2026-01-29", "2026-01-30"):
        publish(day)
    dataset = here.dataset("payments")
    catch_up(here, dataset)
    row = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
    found = record.neighbours(here, dataset, row, each_side=2)
    assert found.of == "card c4"
    times = [one.record["at"] for one in found.rows]
    assert times == sorted(times)
    assert {one.record["card"] for one in found.rows} == {"c4"}
    assert [one.is_this for one in found.rows].count(True) == 1
    assert len({one.batch_id for one in found.rows}) == 2
    flagged = {one.anomaly_id for one in queue.page(here.ledger, Filters(kind="flagged")).rows}
    names = [anomaly_id("payments", one.batch_id, one.record_key) for one in found.rows]
    assert [one.anomaly_id for one in found.rows] == [name if name in flagged else None for name in names]
    at = [one.is_this for one in found.rows].index(True)
    assert found.before == found.rows[at - 1]


def test_a_column_has_the_distribution_of_its_batch(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """What an observed value is drawn against."""
    publish()
    dataset = here.dataset("payments")
    amount = usual.usual(here, dataset, "2026-01-30", "amount")
    assert amount
    assert (
        sum(amount.counts) == N - 2
    )  # the outermost are beyond the edges, or one outlier would hide the rest
    card = usual.usual(here, dataset, "2026-01-30", "card", asked=["c9"])
    assert card
    assert dict(card.categories) == dict.fromkeys((f"c{i}" for i in range(5)), 0.2) | {"c9": 0.0}
    assert usual.usual(here, dataset, "2026-01-30", "no such column") is None


@pytest.mark.parametrize(
    "share_same", [0.0, 0.6, 1.0], ids=["all different", "mostly one value", "always that value"]
)
def test_a_derived_column_has_the_distribution_that_the_model_learned(
    here: Installation, share_same: float
) -> None:
    """It is not stored with the records; against numpy's count of the same values in the same bins."""
    random = np.random.default_rng(7)
    values = random.normal(0.0, 2.0, 20_000)
    values[: int(share_same * 20_000)] = 0.25
    shape = NumberShape.fit(pa.chunked_array([values]), Number.fit(values))
    drift = ColumnDrift(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, None, usual=shape.counts, bins=shape.edges)
    found = Measures(9, 9, 0, 0.0, None, None, 9, 0, columns={"amount_change": drift})
    watched = store.Watched("b", date(2026, 1, 30), found, (), 3, datetime(2026, 1, 31, tzinfo=UTC))
    store.replace(here.ledger, "payments", watched)

    drawn = usual.usual(here, here.dataset("payments"), "b", "amount_change", around=[-4.5, 4.0])
    assert drawn
    assert drawn.known
    assert (drawn.n_records, sum(drawn.counts)) == (20_000, pytest.approx(20_000))
    assert drawn.edges[0] < -4.5
    assert drawn.edges[-1] > 4.0
    counted, _ = np.histogram(values, drawn.edges)
    inside = [
        i
        for i in range(len(counted))
        if drawn.known[0] <= drawn.edges[i] and drawn.edges[i + 1] <= drawn.known[1]
    ]
    np.testing.assert_allclose(np.array(drawn.counts)[inside], counted[inside], rtol=0.2)
    if share_same:
        most = int(np.argmax(drawn.counts))
        assert drawn.counts[most] >= share_same * 20_000
        assert (drawn.edges[most] + drawn.edges[most + 1]) / 2 == pytest.approx(0.25)


def test_what_was_looked_up_holds_until_the_batch_is_scored_again(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """A record is looked at more than once, and its batch read once."""
    dataset = here.dataset("payments")

    def nearest() -> list[str]:
        catch_up(here, dataset)
        row = record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))
        return [one.record_key[-3:] for one in compare.nearest(here, dataset, row)]

    publish(flagged=(3, 4))
    assert nearest() == ["005", "002", "006"]
    tables = here.tables(dataset).root
    shutil.move(tables, f"{tables}.gone")
    assert nearest() == ["005", "002", "006"]
    shutil.move(f"{tables}.gone", tables)
    publish(flagged=(3, 4, 5), version=4)
    assert "005" not in nearest()


def queued(here: Installation, publish: Callable[..., BatchState]) -> tuple[Dataset, Whole]:
    """Two flagged records in the queue, and the second of them."""
    publish(flagged=(3, 4))
    dataset = here.dataset("payments")
    catch_up(here, dataset)
    return dataset, record.one(here.ledger, anomaly_id("payments", "2026-01-30", "2026-01-30-004"))


def deliver_again(here: Installation, order: list[int]) -> None:
    """The same records in another order, checked and not scored."""
    dataset, day = here.dataset("payments"), "2026-01-30"
    tables, state = here.tables(dataset), here.ledger.newest("payments", "2026-01-30")
    assert state is not None
    before = tables.read("records", batch_id=day).sort_by("row_number")
    moved = before.take(order).set_column(
        before.column_names.index("row_number"), before.field("row_number"), before["row_number"]
    )
    tables.replace("records", day, moved.to_reader(), note={})
    here.ledger.record_validation(replace(state, fingerprint="again", scored_at=None))


def test_a_record_that_lies_elsewhere_by_now_is_not_mistaken_for_the_one_in_its_place(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """Delivered again in another order, not scored yet: the queue's row numbers are those of before."""
    dataset, row = queued(here, publish)
    (this,) = (one for one in record.neighbours(here, dataset, row).rows if one.is_this)
    assert this.record_key == row.record_key
    deliver_again(here, list(range(N))[::-1])
    for look in (record.neighbours, compare.nearest, versions.stored):
        with pytest.raises(NotReady, match="delivered again since, or is not stored"):
            look(here, dataset, row)
    browser = as_role(here, may_write=False)
    for part in ("neighbours", "nearest"):
        shown = browser.get(f"/record/{row.anomaly_id}/{part}", params={"part": True})
        assert (shown.status_code, "delivered again since" in shown.text) == (200, True)
        assert "2026-01-30-035" not in shown.text
        assert browser.get(f"/api/records/{row.anomaly_id}/{part}").status_code == 404


def test_which_records_are_normal_is_not_told_by_the_scores_of_an_earlier_delivery(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """The record lies where it lay, the other flagged one does not."""
    dataset, row = queued(here, publish)
    deliver_again(here, [0, 1, 2, 5, 4, 3, *range(6, N)])
    with pytest.raises(NotReady, match="not scored yet"):
        compare.nearest(here, dataset, row)
    (this,) = (one for one in record.neighbours(here, dataset, row).rows if one.is_this)
    assert this.record_key == row.record_key


@pytest.mark.parametrize("rows_at_once", [1, 7, N, 1000])
def test_columns_are_read_as_they_are_stored_however_many_rows_at_once(
    here: Installation, publish: Callable[..., BatchState], monkeypatch: pytest.MonkeyPatch, rows_at_once: int
) -> None:
    """All of some batches, the first of one, or a few by their place; a column that is not stored is
    missing.
    """
    monkeypatch.setattr(cells, "SLICE", rows_at_once)
    monkeypatch.setattr(cells, "SOME", rows_at_once)
    dataset, days = here.dataset("payments"), ["2026-01-29", "2026-01-30"]
    assert cells.read(here, dataset, days, ["card"]) is None
    for day in days:
        publish(day)
    found = cells.read(here, dataset, days, ["card", "unheard of"])
    assert found is not None
    rows = sorted(found.to_pylist(), key=lambda one: (one["batch_id"], one["row_number"]))
    assert rows == [
        {"batch_id": day, "row_number": i, "0": f"c{i % 5}", "1": None} for day in days for i in range(N)
    ]
    first = cells.read(here, dataset, days[:1], ["amount"], most=9)
    assert first is not None
    assert first["0"].to_pylist() == [float(i) for i in range(9)]
    places = [(days[1], N - 1), (days[0], 3), (days[1], 0), (days[0], N)]
    whole = cells.whole(here, dataset, places)
    assert [(place, key, values["amount"]) for place, (key, values) in whole.items()] == [
        ((day, i), f"{day}-{i:03}", float(i)) for day, i in places[:3]
    ]
    assert cells.whole(here, dataset, []) == {}


def test_nearest_are_the_unflagged_records_that_are_most_alike(
    here: Installation, publish: Callable[..., BatchState]
) -> None:
    """What a normal record like this one looks like, and in what it differs."""
    dataset, row = queued(here, publish)
    found = compare.nearest(here, dataset, row)
    assert [one.record_key[-3:] for one in found] == ["005", "002", "006"]
    assert [round(one.distance, 3) for one in found] == sorted(round(one.distance, 3) for one in found)
    assert found[0].differs == ("amount",)
    ignored = {name: one.model_copy(update={"role": "ignored"}) for name, one in dataset.columns.items()}
    step = Derived(sql='"amount" - lag("amount") OVER by_time')
    by_steps = dataset.model_copy(update={"columns": ignored, "derived": {"step": step}})
    by_steps.__dict__.pop("with_derived", None)  # what it was before
    near = compare.nearest(here, by_steps, row)  # the model reads what is derived from it alone
    assert (near[0].record_key[-3:], near[0].differs) == ("005", ("amount",))
    sampled = record.one(here.ledger, queue.page(here.ledger, Filters(kind="sampled")).rows[0].anomaly_id)
    assert sampled.record_key not in {one.record_key for one in compare.nearest(here, dataset, sampled)}
    assert compare.clearing(here, dataset, sampled).why_not == "it is not flagged"
    assert compare.clearing(here, dataset, row).why_not == "model version 3 is no longer in the registry"
