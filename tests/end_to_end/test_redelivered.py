"""A batch that is delivered again says so, and what came, went and changed."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.report.batch import write
from pipeline.results import views

from .shop import Shop, changed, orders


def notes(shop: Shop) -> list[str]:
    return [one for one in shop.state().notes if one.startswith("delivered again")]


def test_a_corrected_delivery_says_what_came_went_and_changed(shop: Shop) -> None:
    """Twenty-one amounts replaced, three records left out, two added; on the page and in status."""
    shop.accepted(orders())
    assert notes(shop) == []
    corrected = changed("amount", [5.0] * 21).slice(0, 57)
    shop.accepted(pa.concat_tables([corrected, orders(2, 500)]))
    assert notes(shop) == ["delivered again: of its accepted records 21 changed, 2 came, 3 went"]
    shop.place.validate("b1", force=True)
    assert notes(shop) == ["delivered again: of its accepted records 21 changed, 2 came, 3 went"]
    here = shop.place.here
    ((batch,),) = (found["batches"] for found in views.status(here))
    assert batch["notes"] == notes(shop)
    page = write(here, here.dataset("orders"), shop.state(), None)
    assert page.path.read_text(encoding="utf-8").count(notes(shop)[0]) == 1


def test_a_record_that_is_set_aside_now_went(shop: Shop) -> None:
    """What counts is what is published and scored; values are compared as they are, missing ones too."""
    shop.accepted(changed("weight", [None, float("nan"), 2.0]))
    shop.accepted(
        changed("amount", [5000.0], table=changed("weight", [None, float("nan"), None])),
        out_of_range__amount=1,
    )
    assert notes(shop) == ["delivered again: of its accepted records 1 changed, 0 came, 1 went"]


def test_without_a_key_a_changed_record_went_and_another_came(shop: Shop) -> None:
    shop.place.edit("key: id\n", "")
    shop.accepted(orders())
    shop.accepted(changed("amount", [5.0]))
    assert notes(shop) == ["delivered again: of its accepted records 1 came, 1 went"]


@pytest.mark.parametrize("first", [orders().drop_columns("kind"), b""], ids=["contract", "unreadable"])
def test_after_a_refusal_nothing_is_there_to_compare_with(shop: Shop, first: pa.Table | bytes) -> None:
    shop.refused(first)
    shop.accepted(orders())
    assert notes(shop) == ["delivered again; no record of it was published before"]


def test_a_column_that_the_contract_got_since_is_not_compared(shop: Shop) -> None:
    """No record had it before: that it is there now corrects nothing."""
    shop.accepted(orders())
    shop.place.edit("  shop: {", "  tip: {type: float, role: numeric}\n  shop: {")
    tipped = orders().append_column("tip", pa.array([1.5] * orders().num_rows))
    shop.accepted(changed("amount", [5.0, 6.0], table=tipped))
    assert notes(shop) == ["delivered again: of its accepted records 2 changed, 0 came, 0 went"]
