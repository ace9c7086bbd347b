"""The batches of a dataset at a glance: a flood of flags is not hidden behind a column of numbers."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.config.dataset import Flagging
from pipeline.errors import RegistryUnreachable
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding
from pipeline.report.glance import Glance, glance, in_doubt, misses_most, next_step

from .monitoring_data import QUIET
from .review_data import refused, row, score

FLOOD = Finding("flags", "alarm", "354 of 1000 records are flagged where 20 are expected", "look")
HALF = Finding("volume", "warning", "half the records", "ask")
MANY = Finding("backlog", "notice", "many wait", "review")


def measured(here: Installation, batch_id: str, n_flagged: int, *findings: Finding) -> None:
    """A batch that was scored, as monitoring found it."""
    score(here, [row(f"k{batch_id}", batch_id=batch_id)])
    found = replace(QUIET, n_flagged=n_flagged)
    day = date.fromisoformat(batch_id[:10])
    store.replace(
        here.ledger, "payments", store.Watched(batch_id, day, found, findings, 3, datetime.now(UTC))
    )


def test_each_batch_in_doubt_has_its_pages_headline_and_the_worst_is_named(here: Installation) -> None:
    """Notices are no doubt; what was refused since, and strays, are counted nowhere."""
    payments = here.dataset("payments")
    assert glance(here, payments, 30) == Glance({}, ())
    measured(here, "2026-01-27", 20, MANY)
    (line,) = glance(here, payments, 30).lines
    assert line == "20 records flagged in the newest batch; the review budget of 20 a day allows for 20"
    measured(here, "2026-01-28", 354, FLOOD, MANY)
    measured(here, "2026-01-29", 400)
    measured(here, "2026-01-30", 26, HALF)
    measured(here, "2026-01-31", 900, FLOOD)
    measured(here, "2026-01-31_undated", 900, FLOOD)
    here.ledger.record_validation(replace(refused("2026-01-31"), fingerprint="g"))
    found = glance(here, payments, 30)
    assert found.headlines == {
        "2026-01-28": "Far more is odd than usual: look at these flags together",
        "2026-01-30": "Look before you rely on these flags",
    }
    assert found.lines[0] == "800 records flagged in 4 batches; the review budget of 20 a day allows for 80"
    assert found.lines[1] == "look first at: vaewatch report payments 2026-01-28"
    assert "vaewatch review groups payments" in found.lines[2]
    few = glance(here, payments, 2)
    assert few.lines[0].startswith("26 records flagged in the newest batch")
    assert few.headlines == found.headlines  # of batches that are not printed, too
    states = here.ledger.current("payments").items()
    scored = [name for name, state in states if state.status == "scored"]
    assert in_doubt(here, payments, scored) == found.headlines


@pytest.mark.parametrize(
    ("flag", "allowed"),
    [
        ({"review_budget": 12.5}, "the review budget of 12.5 a day allows for 60"),
        ({"error_rate": 0.02}, "an error rate of 2.0% allows for 60"),
        ({"false_discovery_rate": 0.1}, "among normal records alone it would be 60"),
    ],
)
def test_flags_are_held_against_what_was_asked_for(
    here: Installation, flag: dict[str, Any], allowed: str
) -> None:
    """Three days of a flood have a remedy that nobody finds by chance; one such day, or a cap, needs none."""
    payments = here.dataset("payments").model_copy(update={"flag": Flagging(**flag)})
    measured(here, "2026-01-27", 100)
    measured(here, "2026-01-28", 100)
    measured(here, "2026-01-29", 40)
    (line,) = glance(here, payments, 30).lines
    assert line == f"240 records flagged in 3 batches; {allowed}"
    measured(here, "2026-01-29", 41)
    *_, flood = glance(here, payments, 30).lines
    assert flood.startswith("3 of these batches flag more than twice what is allowed for; ")
    assert "set flag.cap in " in flood
    capped = payments.model_copy(update={"flag": Flagging(**flag, cap=30)})
    assert len(glance(here, capped, 30).lines) == 1


def test_after_scoring_the_next_step_is_the_batch_in_doubt_before_its_records(here: Installation) -> None:
    """Five hundred flags of one cause are not judged one by one."""
    payments, stray = here.dataset("payments"), "2026-01-31_undated"
    measured(here, "2026-01-27", 20, MANY)
    measured(here, "2026-01-28", 354, FLOOD, MANY)
    measured(here, "2026-01-30", 0, HALF)
    measured(here, stray, 0, HALF)
    calm = next_step(here, payments, {"2026-01-27": 20, stray: 0})
    assert calm.startswith("look at what is flagged: vaewatch review list payments")
    assert next_step(here, payments, {"2026-01-27": 0}) == ""
    assert next_step(here, payments, {"2026-01-27": 20, "2026-01-28": 354, "2026-01-30": 0}) == (
        "see why the flags of 2026-01-28 are in doubt (and of 1 more): vaewatch report payments 2026-01-28; "
        "then records that are odd alike, a line a group: vaewatch review groups payments"
    )
    silent = next_step(here, payments, {"2026-01-30": 0})
    assert silent == "see why the flags of 2026-01-30 are in doubt: vaewatch report payments 2026-01-30"


@pytest.mark.parametrize(
    ("held", "said"),
    [('{"recall": 0.23}', "version 3 found 23%"), ('{"recall": 0.5}', ""), ("{}", "")],
)
def test_a_version_that_finds_less_than_half_is_said_with_what_to_do(held: str, said: str) -> None:
    """One that finds half or more, or of which nobody knows, is not."""
    version = SimpleNamespace(version=3, tags={"evaluated_holdout": held})
    other = SimpleNamespace(version=2, tags={"evaluated_holdout": '{"recall": 0.1}'})
    told = misses_most(*asked(lambda _: [other, version]))
    assert told == "" if not said else (said in told and told.endswith(": vaewatch versions payments 3"))


def test_without_the_registry_nothing_is_said_of_what_a_version_finds() -> None:
    """The table of batches is worth printing all the same."""

    def unreachable(_: str) -> Any:
        raise RegistryUnreachable("it is away")

    assert misses_most(*asked(unreachable)) == ""


def asked(versions: Any) -> Any:
    """An installation in which version 3 of payments serves, and the dataset."""
    ledger, registry = SimpleNamespace(serving_version=lambda _: 3), SimpleNamespace(versions=versions)
    return SimpleNamespace(ledger=ledger, registry=registry), SimpleNamespace(name="payments")
