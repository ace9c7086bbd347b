"""The suggested budget: near the best one that a known feed has, silent on little evidence, never more than
was looked at.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from pipeline.cli import app as program
from pipeline.config.dataset import Dataset
from pipeline.config.settings import Settings
from pipeline.installation import Installation
from pipeline.review import judging, statistics
from pipeline.review.budget import (
    FEWEST,
    FEWEST_CAUSES,
    Suggestion,
    TooFew,
    causes_of,
    suggest,
    suggested,
    worth,
)
from pipeline.review.filters import Filters

from .review_data import DATASET, SCORED_AT, put, row
from .review_page import as_role


def feed(n: int, seed: int) -> list[tuple[float, bool]]:
    """Severities 0 to 1; a record is worth the time with the chance of its severity: half of them above
    0.5.
    """
    rng = np.random.default_rng(seed)
    severities = rng.random(n)
    return [(float(s), bool(rng.random() < s)) for s in severities]


def test_it_is_the_half_of_which_most_are_worth_the_time() -> None:
    """True best place: half of 40 a day. 2000 verdicts: the largest sum is within a tenth of it."""
    found = suggest(feed(2000, 1), 40.0)
    assert found
    assert found.best == pytest.approx(20, abs=4)
    assert found.low <= found.best <= found.high
    assert "now 40" in found.text
    assert found.least_severe.high < 0.5


def test_its_interval_holds_the_best_budget_most_of_the_time() -> None:
    """Named 90 %; of 60 feeds of 300 verdicts at least 45 hold it (at 90 % fewer are seen less than once in
    10^4).
    """
    inside = 0
    for seed in range(60):
        found = suggest(feed(300, seed), 40.0, seed=seed)
        assert found
        inside += found.low <= 20 <= found.high
    assert inside >= 45


@given(st.lists(st.tuples(st.integers(2, 9), st.booleans()), min_size=30, max_size=60), st.integers(2, 9))
def test_many_records_of_one_cause_are_one_witness(judged: list[tuple[float, bool]], times: int) -> None:
    """A group that is judged whole says no more for each of its records that there are."""
    alone = suggest(judged, 20.0)
    again = suggest(
        [one for one in judged for _ in range(times)],
        20.0,
        causes=[i for i in range(len(judged)) for _ in range(times)],
    )
    assert alone
    assert again
    assert (again.best, again.low, again.high) == pytest.approx((alone.best, alone.low, alone.high))


@pytest.mark.parametrize("n_causes", [FEWEST_CAUSES - 1, FEWEST_CAUSES])
def test_fifty_verdicts_on_a_few_groups_suggest_nothing(n_causes: int) -> None:
    """One word on a group of fifty is one opinion; by it alone people would be shown next to nothing."""
    judged = [(2 + i / 10, i % 7 == 0) for i in range(57)]
    found = suggest(judged, 14.0, causes=[i % n_causes for i in range(57)])
    assert (found is None) == (n_causes < FEWEST_CAUSES)


def test_one_cause_is_one_batch_or_one_press_of_a_signature() -> None:
    """Linked ones too; another signature is another cause, even in one batch and by one press."""
    given = [("a", 1, "x"), ("a", 2, "x"), ("a", 2, "y"), ("a", 3, "z"), ("b", 1, "x"), ("a", 4, "y")]
    found = causes_of(given)
    assert len({found[i] for i in (0, 1, 2, 5)}) == 1
    assert len(set(found)) == 3
    assert causes_of([]) == []


def test_verdicts_are_worth_no_more_than_their_causes_nor_than_precision_counts() -> None:
    """Forty of one group, all normal, on forty days are little more than one; of forty groups, forty."""
    assert worth([False] * 40, range(40), ["a"] * 40) == pytest.approx(1, abs=0.1)
    assert worth([False] * 40, range(40), [f"{i}" for i in range(40)]) == 40
    assert worth([i % 2 == 0 for i in range(40)], [0] * 40, [f"{i}" for i in range(40)]) == 1


def test_where_all_are_worth_the_time_a_larger_one_is_worth_trying() -> None:
    """And where none is, there is nothing to look at."""
    good = suggest([(float(i), True) for i in range(60)], 20.0)
    bad = suggest([(float(i), False) for i in range(60)], 20.0)
    assert good
    assert bad
    assert (good.best, "larger" in good.text) == (20.0, True)
    assert bad.best == 0
    assert bad.text.startswith("none: at every severity, at most half of the 60 judged")


def test_a_budget_below_one_a_day_is_not_written_as_none() -> None:
    """A budget of 0 cannot be set."""
    found = suggest([(float(i), i >= 54) for i in range(60)], 4.0)
    assert found
    assert found.best == pytest.approx(0.4)
    assert found.text.startswith("0.4 a day (")


@given(st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=60), st.floats(1, 1000))
def test_it_is_between_nothing_and_now_and_silent_on_little(
    judged: list[tuple[float, bool]], now: float
) -> None:
    """Nobody looked beyond the present budget: nothing is known there."""
    found = suggest(judged, now)
    assert (found is None) == (len(judged) < FEWEST)
    if found:
        assert 0 <= found.low <= found.high <= now + 1e-6
        assert 0 <= found.best <= now + 1e-6


@given(st.lists(st.tuples(st.integers(2, 5), st.booleans()), min_size=30, max_size=60), st.randoms())
def test_it_is_the_same_in_whatever_order_people_judged(
    judged: list[tuple[float, bool]], chance: Any
) -> None:
    """Records of one severity are looked at together or not at all."""
    found, again = (suggest(order, 20.0) for order in (judged, chance.sample(judged, len(judged))))
    assert found
    assert again
    assert found.best == again.best


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Installation]:
    installation = Installation(Settings(home=tmp_path / "home", datasets=tmp_path / "datasets"))
    yield installation
    installation.close()


def test_it_speaks_of_the_version_that_serves(here: Installation) -> None:
    """Verdicts on another model's flags say nothing of this one's order."""
    columns = {"amount": {"type": "float", "role": "numeric"}}
    dataset = Dataset.model_validate({"dataset": "payments", "incoming": {"path": "in"}, "columns": columns})
    rows = [row(f"k{i}", severity=2 + i / 10, signature=f"amount↑ {i % 20}") for i in range(40)]
    put(here.ledger, rows)
    for opinion, some in (("normal", rows[:20]), ("anomaly", rows[20:])):
        judging.give(here.ledger, [one["anomaly_id"] for one in some], opinion, by="ann")  # type: ignore[arg-type]
    assert suggested(here, dataset) is None
    here.ledger.set_serving("payments", 3)
    found = suggested(here, dataset)
    assert isinstance(found, Suggestion)
    assert (found.now, found.best, found.n_judged) == (20.0, 10.0, 40)
    here.ledger.set_serving("payments", 4)
    assert suggested(here, dataset) is None


def test_one_press_on_a_group_of_many_batches_suggests_nothing_and_says_so(here: Installation) -> None:
    """Precision has too few of them to tell, and so has a budget."""
    here.settings.datasets.mkdir()
    (here.settings.datasets / "payments.yaml").write_text(DATASET + BUDGET)
    rows = [
        row(f"k{i}", f"2026-01-{1 + i % 30:02}", severity=2 + i / 100, signature="fee↓") for i in range(171)
    ]
    others = [row(f"o{i}", severity=5.0 + i, signature="amount↑") for i in range(3)]
    put(here.ledger, [*rows, *others])
    here.ledger.set_serving("payments", 3)
    group = Filters(dataset="payments", signature="fee↓")
    judging.give_group(here.ledger, group, "normal", by="ann", n=171)
    for one in others:
        judging.give(here.ledger, [one["anomaly_id"]], "anomaly", by="ann")
    (share,) = statistics.review(here.ledger).precision
    assert share.is_untold
    found = suggested(here, here.dataset("payments"))
    assert isinstance(found, TooFew)
    told = "none yet: the 174 judged say as much as 1 independent record, as many"
    assert found.text.startswith(told)
    assert told in as_role(here, may_write=True).get("/overview").text
    where = {"VAEWATCH_HOME": str(here.settings.home), "VAEWATCH_DATASETS": str(here.settings.datasets)}
    assert told in " ".join(CliRunner().invoke(program, ["review", "stats"], env=where).stdout.split())
    as_json = CliRunner().invoke(program, ["review", "stats", "--json"], env=where).stdout
    assert json.loads(as_json)["budgets"] == {}


LATER = SCORED_AT + timedelta(days=1)
BUDGET = "flag: {review_budget: 20}\n"
ASK = """
from pathlib import Path
from pipeline.installation import Installation
from pipeline.review import judging
from pipeline.review.budget import suggested
from pipeline.config.settings import Settings
here = Installation(Settings(home=Path({home!r}), datasets=Path({datasets!r})))
"""


def known(found: Suggestion | TooFew | None) -> Suggestion:
    assert isinstance(found, Suggestion)
    return found


def test_it_is_found_anew_by_each_process_once_anything_changed(
    here: Installation, at_once: Callable[..., list[str]]
) -> None:
    """What this process keeps is at every step what another one, which has kept nothing, finds."""
    file = here.settings.datasets / "payments.yaml"
    file.parent.mkdir()
    file.write_text(DATASET + BUDGET)
    rows = [row(f"k{i}", severity=2 + i / 10, signature=f"amount↑ {i % 20}") for i in range(40)]
    ids = [one["anomaly_id"] for one in rows]
    ask = ASK.format(home=str(here.settings.home), datasets=str(here.settings.datasets))

    def elsewhere(act: str = "") -> str:
        (said,) = at_once(ask, f"{act}\nprint(suggested(here, here.dataset('payments')))", [[]])
        return said

    def now() -> Suggestion | TooFew | None:
        found = suggested(here, here.dataset("payments"))
        assert str(found) == elsewhere()
        assert suggested(here, here.dataset("payments")) is found, "nothing changed, so it is not looked for"
        return found

    put(here.ledger, rows)
    here.ledger.set_serving("payments", 3)
    assert now() is None
    judging.give(here.ledger, ids[20:], "anomaly", by="ann")
    said = judging.give(here.ledger, ids[:20], "normal", by="ann")
    assert known(now()).best == 10.0
    elsewhere(f"judging.undo(here.ledger, {said.act!r}, by='ann')")
    assert now() is None, "twenty verdicts are too few"
    elsewhere(f"judging.give(here.ledger, {ids[:30]!r}, 'normal', by='bob')")
    assert known(now()).best == 5.0, "they differ on ten of the anomalies"
    turned = [one | {"severity": 9.0 - one["severity"], "scored_at": LATER} for one in rows]
    put(here.ledger, turned, scored_at=LATER)
    assert known(now()).best == 0.0, "the most severe are false alarms now"
    file.write_text(DATASET + BUDGET.replace("20", "40"))
    assert known(now()).now == 40.0
    here.ledger.set_serving("payments", 4)
    assert now() is None
