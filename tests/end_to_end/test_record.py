"""One record beside a model and its batch, with real parts: on the page, in the API, in a shell."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fastapi.testclient import TestClient

from pipeline.installation import Installation
from pipeline.review import compare, queue, record
from pipeline.review.filters import Filters
from pipeline.review.queued import Whole
from tests.pipeline.review_page import as_role

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]


@pytest.fixture
def here(scored: Place) -> Installation:
    return scored.here


@pytest.fixture
def browser(here: Installation) -> TestClient:
    return as_role(here, may_write=False)


def of_kind(here: Installation, kind: str) -> Whole:
    (row,) = queue.page(here.ledger, Filters(kind=kind), limit=1).rows
    return record.one(here.ledger, row.anomaly_id)


def test_who_opens_the_list_finds_the_models_loaded(here: Installation, browser: TestClient) -> None:
    """They take seconds to load: not those of whoever opens a record next."""
    assert "registry" not in vars(here)
    assert browser.get("/").status_code == 200
    for thread in threading.enumerate():
        if thread.name == "warm":
            thread.join()
    assert "registry" in vars(here)


def test_each_part_of_a_record_comes_by_itself_and_is_a_page_too(
    here: Installation, browser: TestClient
) -> None:
    """The script fetches what takes longer; without one, a link leads there."""
    for kind, names in {
        "flagged": ["clearing", "nearest", "versions", "neighbours"],
        "sampled": ["nearest", "versions", "neighbours"],
    }.items():
        address = f"/record/{of_kind(here, kind).anomaly_id}"
        page = browser.get(address).text
        shown = [name for name in names if name != "versions"]  # there is one: nothing to compare
        assert re.findall(r'data-part="(.+?)\?part=true"', page) == [f"{address}/{name}" for name in shown]
        for name in names:
            assert (f'<a href="{address}/{name}">' in page) == (name in shown)
            alone, part = (
                browser.get(f"{address}/{name}", params={"part": is_part}) for is_part in (False, True)
            )
            assert part.text.strip() in alone.text
            assert ("<main" in alone.text, "<main" in part.text) == (True, False)


def test_the_api_and_a_shell_tell_what_the_page_shows_of_a_record(
    scored: Place, here: Installation, browser: TestClient
) -> None:
    """The same functions behind all three, typed; what is unusable says so."""
    dataset = here.dataset(scored.name)
    flagged = [
        record.one(here.ledger, one.anomaly_id)
        for one in queue.page(here.ledger, Filters(kind="flagged")).rows
    ]
    row = next(one for one in flagged if len(record.neighbours(here, dataset, one).rows) > 1)
    api = {
        name: browser.get(f"/api/records/{row.anomaly_id}/{name}").json()
        for name in ("clearing", "nearest", "neighbours", "versions")
    }
    named = [reason.column for reason in row.reasons]
    assert (
        [one["column"] for one in api["clearing"]["changes"]]
        == named[: len(api["clearing"]["changes"])]
        != []
    )
    assert api["clearing"]["score"] < row.threshold
    assert (len(api["nearest"]), api["nearest"][0]["distance"] > 0) == (3, True)
    (this,) = (one for one in api["neighbours"]["rows"] if one["is_this"])
    assert (this["record_key"], this["record"]) == (row.record_key, row.record)
    assert api["neighbours"]["columns"][:2] == ["time", row.reasons[0].column]
    asked = ["--clearing", "--nearest", "--neighbours", "--versions"]
    code, output, _ = scored.run("review", "show", row.anomaly_id, *asked, "--json")
    told = json.loads(output)
    assert code == 0
    sent = browser.get(f"/api/records/{row.anomaly_id}").json()
    assert told.keys() - {"clearing", "derived", "nearest", "neighbours", "scored_by"} == sent.keys()
    assert (told["reasons"], told["terms"], told["record"]) == (
        sent["reasons"],
        sent["terms"],
        sent["record"],
    )
    assert told["versions"][0].keys() == sent["versions"][0].keys()
    assert {name: told[name] for name in ("clearing", "nearest", "neighbours")} == {
        name: api[name] for name in ("clearing", "nearest", "neighbours")
    }
    assert [one["anomaly_score"] for one in told["scored_by"]] == [
        one["anomaly_score"] for one in api["versions"]
    ]
    code, output, _ = scored.run("review", "show", row.anomaly_id, *asked)
    change = api["clearing"]["changes"][0]
    assert f"had {change['column']} been {change['needed']} instead of {change['observed']}" in " ".join(
        output.split()
    )
    assert f"{row.record_key} ←" in output
    assert api["nearest"][0]["record_key"] in output

    sampled = of_kind(here, "sampled").anomaly_id
    assert browser.get(f"/api/records/{sampled}/clearing").json() == {
        "changes": [], "score": None, "why_not": "it is not flagged",
    }  # fmt: skip
    assert len(browser.get(f"/api/records/{sampled}/nearest", params={"n": 2}).json()) == 2
    assert browser.get(f"/api/records/{sampled}/nearest", params={"n": 0}).status_code == 422
    nobodys = as_role(here, may_write=True, reads=frozenset({"orders"}))
    for name in ("clearing", "nearest", "neighbours", "versions"):
        assert nobodys.get(f"/api/records/{sampled}/{name}").status_code == 404


CODES = """\
dataset: shops
incoming: {path: ../incoming/shops, settle_seconds: 0}
key: id
columns:
  id: {type: string}
  amount: {type: float, role: numeric}
  mcc: {type: int, role: categorical}
  terminal: {type: float, role: categorical}
train: {min_records: 50, recipe: {steps: 60, n_members: 2}}
flag: {review_budget: 5}
"""
ODD = 5412  # a code that no other record has, beside the one that most have


def test_codes_are_categories_to_whoever_compares_them(
    landed_once: tuple[Place, object], tmp_path: Path
) -> None:
    """A merchant code is a number that is only another than the next: one that no other record has is as far
    from each as can be, and the change that clears its flag is another code, not a step on the way there.
    """
    place = type(landed_once[0])(tmp_path / "codes", "shops")
    place.incoming.mkdir(parents=True)
    place.yaml.parent.mkdir(parents=True)
    place.yaml.write_text(CODES, encoding="utf-8")
    random = np.random.default_rng(5)
    for day in range(3):
        mcc = random.choice([5411, 5999], 300, p=[0.9, 0.1])
        mcc[7] = ODD if day == 2 else mcc[7]
        made = {"id": [f"{day}-{i:03}" for i in range(300)], "amount": random.normal(50, 5, 300), "mcc": mcc}
        made["terminal"] = random.choice([1234567.0, 7654321.0], 300)
        pq.write_table(pa.table(made), place.incoming / f"day{day}.parquet")
        place.validate()
        if day == 1:
            place.train()
    place.score()
    here, dataset = place.here, place.here.dataset("shops")
    (odd,) = queue.page(here.ledger, Filters(search="2-007")).rows
    row = record.one(here.ledger, odd.anomaly_id)
    assert (row.kind, row.reasons[0].column, row.reasons[0].observed) == ("flagged", "mcc", str(ODD))
    cleared = compare.clearing(here, dataset, row)
    assert cleared.changes[0].needed in {"5411", "5999"}
    assert cleared.score is not None
    assert cleared.score < row.threshold
    for near in compare.nearest(here, dataset, row):
        assert "mcc" in near.differs
        assert near.distance >= 1 / 3  # of three columns, one is as different as can be
    browser = as_role(here, may_write=False)
    for address in (f"/api/records/{row.anomaly_id}", f"/record/{row.anomaly_id}"):
        assert browser.get(f"{address}/clearing").status_code == 200
    place.close()
