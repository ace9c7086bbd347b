"""A delivery under a wrong name, or under two, and one that was taken away."""

from __future__ import annotations

from datetime import timedelta
from html import unescape
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.doctor import _dataset
from pipeline.report import batch
from pipeline.results import views
from tests.end_to_end.shop import changed, orders

if TYPE_CHECKING:
    from .shop import Shop

pytestmark = pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
    "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
)


def day(number: int) -> pa.Table:
    """Orders of a day in March."""
    table = orders(first=1000 * number)
    return changed("at", pc.add(table["at"], timedelta(days=number - 1)), table=table)


@pytest.fixture
def open_for_days(shop: Shop) -> Shop:
    for number in range(3, 13):
        shop.land(day(number), f"2026-03-{number:02d}")
    assert all(not shop.state(one.batch_id).notes for one in shop.place.validate().batches)
    return shop


def test_another_days_delivery_under_this_name_is_said_with_the_batch_whose_keys_it_has(
    open_for_days: Shop,
) -> None:
    """The same records are otherwise learned and flagged twice without a word."""
    shop, said = open_for_days, list[str]()
    shop.land(day(6), "2026-03-01")
    receipt = shop.place.validate("2026-03-01", say=said.append)
    assert receipt.batches[0].outcome == "accepted"
    other_day, same = shop.state("2026-03-01").notes
    assert other_day.startswith("its records are mostly of 2026-03-06, its name says 2026-03-01: ")
    assert same.startswith("60 of its 60 accepted records have the keys of batch 2026-03-06: ")
    assert [line for line in said if "noted" in line] == [f"  noted: {other_day}", f"  noted: {same}"]
    page = shop.place.here.page(shop.place.here.dataset("orders"), "2026-03-01") / "index.html"
    assert same in unescape(page.read_text(encoding="utf-8"))


def test_new_records_of_equal_number_and_end_are_no_delivery_made_twice(open_for_days: Shop) -> None:
    """Shops that close at the same hour."""
    shop = open_for_days
    table = day(6)
    renamed = changed("id", [f"new{i}" for i in range(60)], table=table)
    shop.check(renamed, "2026-03-06_b")
    (note,) = shop.state("2026-03-06_b").notes
    assert "is not named like the other batches, such as 2026-03-12" in note


def test_a_name_that_sorts_last_does_not_make_a_batch_the_newest(open_for_days: Shop) -> None:
    """Its records say when it was; by its name it would be the newest for good."""
    shop = open_for_days
    shop.check(day(2), "Orders-2026-03-02")
    here = shop.place.here
    dataset = here.dataset("orders")
    (found,) = views.status(here, "orders")
    assert [found["batches"][i]["batch_id"] for i in (0, -1)] == ["Orders-2026-03-02", "2026-03-12"]
    assert batch.rewrite(here, dataset).batch_id == "2026-03-12"
    assert _dataset(here, dataset).endswith("newest 2026-03-12")


def test_a_file_that_was_taken_away_is_said_and_an_empty_one_withdraws_its_records(
    open_for_days: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published stays until a delivery replaces it; a folder that is cleared is no news."""
    shop = open_for_days
    for name in ("2026-03-03", "2026-03-08"):
        (shop.place.incoming / f"{name}.parquet").unlink()
    (note,) = shop.place.validate().notes
    assert note.startswith(f"the file of 1 batch is gone from {shop.place.incoming}: 2026-03-08; ")
    assert shop.records("2026-03-08").num_rows == 60
    shop.place.edit("{max_set_aside: 0.1}", "{max_set_aside: 0.1, min_records: 0}")
    shop.land(day(8).slice(0, 0), "2026-03-08")
    receipt: Any = shop.place.validate()
    assert receipt.notes == ()
    assert shop.state("2026-03-08").status == "accepted"
    assert shop.records("2026-03-08").num_rows == 0
    monkeypatch.setenv("VAEWATCH_HOME", str(shop.place.settings.home))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(shop.place.settings.datasets))
    shop.place.train()
    shop.place.score()
    shown = CliRunner().invoke(app, ["status", "orders"]).output
    (line,) = (line for line in shown.splitlines() if "2026-03-08" in line)
    assert line.split()[:3] == ["2026-03-08", "nothing", "scored"]
    assert "batches: 1 nothing scored, 9 scored" in " ".join(shown.split())
