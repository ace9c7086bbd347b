"""Where two versions disagree: read from the challenger's evidence, linked to the queue, and a next step
where there is none.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import pytest
from fastapi.testclient import TestClient

from pipeline.evaluation import Churn, Evidence, Measured, Share
from pipeline.installation import Installation
from pipeline.registry import ModelVersion

from .review_data import put, reason, row
from .review_page import as_role
from .test_review_names import HASH
from .test_review_page_escaping import HOSTILE, Harmless

PAGE = "/disagreements/payments"
SHADOW = "promote: {shadow_days: 3}\n"
JUDGED = {"decision": "wait", "evaluated_against": "1", "evaluated_at": "2026-01-31T04:00:00.000+00:00"}


@dataclass
class Kept:
    """A registry that holds these versions, and one evaluation for all."""

    held: list[ModelVersion]
    whole: dict[str, Any] | None = None

    def versions(self, _dataset: str) -> list[ModelVersion]:
        return self.held

    def evaluation(self, _version: ModelVersion) -> dict[str, Any] | None:
        return self.whole


def version(number: int, *aliases: str, **tags: str) -> ModelVersion:
    made = datetime(2026, 1, 27, 4, tzinfo=UTC)
    return ModelVersion(
        "payments", number, "r", "", aliases, {"window": "2026-01-01..2026-01-27"} | tags, made, {}
    )


def example(key: str, by: str = "challenger", p: float = 0.0001, **given: Any) -> dict[str, Any]:
    scores = {"score": 31.5, "score_champion": 12.25, "p_value": p, "p_value_champion": 0.25}
    return {"batch_id": "2026-01-30", "record_key": key, "by": by, **scores, **given}


def measured(*examples: dict[str, Any], differ: int | None = None, **given: Any) -> dict[str, Any]:
    """What an evaluation keeps of version 2 beside version 1."""
    some = Share(0, 0)
    one = Measured(2, 9, None, {}, None, None, 0.0, some, None, some, 1.0, 1.0, 1.0, some, some)
    churn = Churn(40, len(examples) if differ is None else differ, examples, 26.25, 24.0)
    evidence = Evidence(
        "payments", JUDGED["evaluated_at"], "2026-01-01", "2026-01-30", 0.1, 9, 9, 5000, 0.01, one,
        champion=replace(one, version=1), churn=churn, shadow_days=2.0,
    )  # fmt: skip
    return {"evidence": asdict(replace(evidence, **given))}


def keep(here: Installation, held: list[ModelVersion], whole: dict[str, Any] | None = None) -> None:
    here.__dict__["registry"] = Kept(held, whole)  # in place of MLflow's


def told(browser: TestClient) -> str:
    """The page's text without tags."""
    answer = browser.get(PAGE)
    assert answer.status_code == 200
    Harmless().feed(answer.text)
    main = answer.text[answer.text.index("<main") : answer.text.index("</main")]
    return " ".join(re.sub("<[^>]*>", " ", main).split())


def test_the_records_of_a_shadow_are_shown_with_its_days(here: Installation, browser: TestClient) -> None:
    """Who flags it, how rare both find it, and a way to the record where the queue has it."""
    file = here.settings.datasets / "payments.yaml"
    file.write_text(file.read_text() + SHADOW)
    known = row("k1")
    put(here.ledger, [known])
    records = [example("k0"), example("k1", "champion", 0.5)]
    keep(here, [version(1, "champion"), version(2, "challenger", **JUDGED)], measured(*records, differ=10))
    text = told(browser)
    for said in (
        "Version 2 (challenger) beside version 1, as the evaluation of 2026-01-31 04:00 UTC",
        "all of the batches that landed after its training up to batch 2026-01-30",
        "Disagreements 10 25% of the 40 records that one or both flag",
        "Shadow 2 of 3 days 1 left, in days of batches; trained 2026-01-27 04:00 UTC, it counts from batch 2026-01-27 on",
        "2 of 10, the smallest p-value of either version first",
        "version 2 above 26.25 nats version 1 above 24.00 nats",
        "k0 2026-01-30, flagged by version 2 31.50 p 0.0001 12.25 p 0.25 not in it",
        "k1 2026-01-30, flagged by version 1 31.50 p 0.5 12.25 p 0.25 open",
        "vaewatch compare payments 2 1",
    ):
        assert said in text
    links = re.findall(r'href="(/record/[^"]*)"', browser.get(PAGE).text)
    assert links == [f"/record/{known['anomaly_id']}?state=any"]
    assert browser.get(links[0]).status_code == 200
    found = browser.get(f"/api{PAGE}").json()["measured"]
    assert [one["flagged_by"] for one in found["records"]] == [2, 1]
    assert {(one["score"], one["score_against"]) for one in found["records"]} == {(31.5, 12.25)}
    assert (found["threshold"], found["threshold_against"]) == (26.25, 24.0)
    assert found["shadow"] == {
        "trained_at": "2026-01-27T04:00:00Z",
        "after": "2026-01-27",
        "days": 2.0,
        "asked": 3.0,
        "left": 1.0,
    }


def test_a_record_is_called_and_explained_as_in_the_queue(here: Installation, browser: TestClient) -> None:
    """Without a key by its place; with the columns that the version that flags it found odd."""
    why = [reason(), reason("country", 0.1, observed="FR", expected="DE (93%)", low=None)]
    records = [
        example(f"{HASH}-1", row_number=7, reasons=why),
        example(HASH, row_number=8, reasons=[]),
    ]
    keep(here, [version(1, "champion"), version(2, "challenger", **JUDGED)], measured(*records))
    text = told(browser)
    assert f"{HASH}-1" not in text
    assert (
        "row 7 (2026-01-30) flagged by version 2 31.50 p 0.0001 12.25 p 0.25 not in it amount 900 not 12.5 80% "
        "country FR not DE 10%" in text
    )
    assert (
        f"{HASH} 2026-01-30, flagged by version 2 31.50 p 0.0001 12.25 p 0.25 not in it of no single column"
        in text
    )
    first, second = browser.get(f"/api{PAGE}").json()["measured"]["records"]
    assert [one["column"] for one in first["reasons"]] == ["amount", "country"]
    assert (first["row_number"], second["reasons"]) == (7, [])


def test_evidence_that_kept_no_scores_is_shown_without_them(here: Installation, browser: TestClient) -> None:
    """Evaluations of an earlier release stay readable."""
    old = {name: value for name, value in example("k0").items() if not name.startswith("score")}
    whole = measured(old)
    for name in ("threshold", "threshold_champion"):
        del whole["evidence"]["churn"][name]
    keep(here, [version(1, "champion"), version(2, "challenger", **JUDGED)], whole)
    text = told(browser)
    assert "record version 2 version 1 queue" in text
    assert "flagged by version 2 – p 0.0001 – p 0.25 not in it" in text
    assert browser.get(f"/api{PAGE}").json()["measured"]["threshold"] is None


def test_without_a_challenger_the_version_that_was_judged_last_is_shown(
    here: Installation, browser: TestClient
) -> None:
    """Promoted since: no shadow runs, and the evidence is still what it was promoted on."""
    passed = JUDGED | {"decision": "promote"}
    older = version(3, **passed | {"evaluated_at": "2026-01-02T04:00:00.000+00:00"})
    whole = measured(example("k0"), shadow_days=0.0)
    keep(here, [version(1, "previous"), older, version(2, "champion", **passed)], whole)
    text = told(browser)
    assert "Version 2 (champion) beside version 1" in text
    assert "the newest days up to batch" in text
    assert "Shadow" not in text
    assert "serves now" not in text
    keep(here, [version(2, "challenger", **passed), version(4, "champion")], whole)
    assert "Version 4 serves now" in told(browser)
    keep(here, [version(1, "champion"), version(2, "challenger", **passed)], measured())
    assert "They agree" in told(browser)


@pytest.mark.parametrize(
    ("held", "whole", "why", "command"),
    [
        ([], None, "no model version is registered yet", "vaewatch train payments"),
        ([version(1, "champion", decision="promote")], None, "beside another yet", "vaewatch evaluate payments"),
        ([version(1, "champion"), version(2, "challenger")], None, "not evaluated", "vaewatch evaluate payments"),
        ([version(2, "challenger", **JUDGED)], None, "is gone", "vaewatch compare payments 2 1"),
        (
            [version(2, "challenger", **JUDGED)],
            measured(champion=None, churn=None, incomparable="a column is gone"),
            "measured alone (a column is gone)",
            "vaewatch versions payments",
        ),
    ],
)  # fmt: skip
def test_where_there_is_no_evidence_the_page_says_what_to_do_next(
    here: Installation,
    browser: TestClient,
    held: list[ModelVersion],
    whole: dict[str, Any] | None,
    why: str,
    command: str,
) -> None:
    """An empty page is the first thing that anybody sees of it."""
    keep(here, held, whole)
    text = told(browser)
    assert why.lower() in text.lower()
    assert command in text
    found = browser.get(f"/api{PAGE}").json()
    assert found["measured"] is None
    assert why in found["why_not"]


@pytest.mark.parametrize("text", HOSTILE, ids=[repr(text[:20]) for text in HOSTILE])
def test_a_key_that_is_all_script_stays_text(here: Installation, browser: TestClient, text: str) -> None:
    """Keys and names of batches are a stranger's."""
    put(here.ledger, [row(text)])
    records = [example(text), example("k", "champion") | {"batch_id": text}]
    keep(here, [version(1, "champion"), version(2, "challenger", **JUDGED)], measured(*records))
    told(browser)
    assert len(browser.get(PAGE).text) < 20_000


def test_only_who_may_read_a_dataset_sees_its_disagreements(here: Installation) -> None:
    """Nor does the registry get asked for another one."""
    keep(here, [version(1, "champion"), version(2, "challenger", **JUDGED)], measured(example("k0")))
    reader, stranger = (
        as_role(here, may_write=False),
        as_role(here, may_write=True, reads=frozenset({"orders"})),
    )
    for address in (PAGE, f"/api{PAGE}"):
        assert reader.get(address).status_code == 200
        refused = stranger.get(address)
        assert refused.status_code == 404
        assert "k0" not in refused.text
        assert reader.get(address.replace("payments", "nothing")).status_code == 404


def test_the_overview_leads_there_once_a_second_version_serves(
    here: Installation, browser: TestClient
) -> None:
    """Before it there is nothing that two could disagree on."""
    put(here.ledger, [row("k0")])
    here.ledger.set_serving("payments", 1)
    assert PAGE not in browser.get("/overview").text
    here.ledger.set_serving("payments", 2)
    assert f'href="{PAGE}"' in browser.get("/overview").text
