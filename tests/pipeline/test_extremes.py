"""Records that score far beyond all earlier batches: told where several are, whatever version scored them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from pipeline.detection.measures import MOST_HIGHEST, Measures
from pipeline.monitoring.extremes import SEVERAL, TIMES
from pipeline.monitoring.findings import Finding
from pipeline.report.trust import ODDEST, doubt
from tests.pipeline.monitoring_data import QUIET, told

SHAPE = 0.9  # of the tail: the heaviest that calibration fits
NORMAL = (0.0, 1.0)


def day(scores: Sequence[float], n: int = 1_000, by: str = "level") -> Measures:
    """A quiet batch of n records with these scores the highest."""
    highest = tuple(sorted(map(float, scores), reverse=True)[:MOST_HIGHEST])
    return replace(
        QUIET, n_records=n, n_read=n, highest=highest, highest_by=(by,) * len(highest), normal=NORMAL
    )


def tail(n: int) -> Measures:
    """A batch whose scores are the quantiles of a Pareto tail, in hundredths of the records."""
    return day([(100 * i / n) ** -SHAPE for i in range(1, MOST_HIGHEST + 1)], n)


def extreme(days: Sequence[Measures]) -> list[Finding | None]:
    return [next((f for f in found if f.key == "extreme"), None) for found in told(days)]


def test_several_records_far_beyond_all_earlier_batches_are_told_with_their_column() -> None:
    """Twenty-two records of a sensor that broke: no share of anything changes."""
    broken = day([1e6 + i for i in range(22)] + [2.0] * 28)
    *before, found = extreme([*[tail(1_000)] * 14, broken])
    assert before == [None] * 14
    assert found is not None
    assert found.severity == "warning"
    highest = (100 * SEVERAL / 1_000) ** -SHAPE
    assert found.what.startswith(
        "22 records score far beyond any of the 14 batches before: 1,000,000 nats and more"
    )
    assert f"no {SEVERAL} records of a batch scored more than {highest:.4g}; all in level" in found.what
    assert "--batch 2026-01-19" in found.next_step
    assert doubt([found]) == ODDEST


@pytest.mark.parametrize("n", [1, SEVERAL - 1])
def test_fewer_than_several_records_may_be_the_oddest_so_far(n: int) -> None:
    """Every heavy tail has its record days."""
    assert not any(extreme([*[tail(1_000)] * 14, day([1e6] * n + [2.0] * 46)]))


def test_heavy_tails_alone_are_hardly_ever_told() -> None:
    """Of n records with a Pareto tail the fifth-highest is n / G to the power of the shape, G of a gamma
    distribution with five degrees. That it is five times as high as seven others has a chance below 1e-4,
    and less with more of them.
    """
    random = np.random.default_rng(0)
    days = [day((1 - random.random(1_000)) ** -SHAPE) for _ in range(300)]
    assert sum(found is not None for found in extreme(days)) == 0
    gammas = random.gamma(SEVERAL, size=(200_000, 8))
    higher = gammas[:, 0] ** -SHAPE > TIMES * (gammas[:, 1:] ** -SHAPE).max(axis=1)
    assert higher.mean() < 1e-3


def test_versions_that_score_in_other_units_compare() -> None:
    """The same records, scored by a version whose scores are three times as large and begin elsewhere."""
    broken = day([60.0] * 9 + [2.0] * 41)

    def by_another(batch: Measures) -> Measures:
        scores = tuple(3 * score - 100 for score in batch.highest)
        return replace(batch, highest=scores, normal=tuple(3 * x - 100 for x in NORMAL))

    days = [*[tail(1_000)] * 14, broken]
    (*_, same), (*_, other) = extreme(days), extreme([*days[:-1], by_another(broken)])
    assert same is not None
    assert other is not None
    assert (other.value, other.usual) == pytest.approx((same.value, same.usual))
    assert not any(extreme([*[tail(1_000)] * 14, *[by_another(tail(1_000))] * 3]))


def test_a_larger_batch_has_more_high_scores_and_is_no_odder() -> None:
    """Ten days in one delivery: the fifth-highest of ten times as many records is eight times as high."""
    *_, tenfold = days = [*[tail(1_000)] * 14, tail(10_000)]
    assert tenfold.highest[SEVERAL - 1] > TIMES * days[0].highest[SEVERAL - 1]
    assert not any(extreme(days))


def test_a_second_fault_is_told_like_the_first_and_many_are_usual() -> None:
    """One bad day must not hide the next; a feed with such days every week has got used to them."""
    broken = day([1e6] * 22)
    found = extreme([*[tail(1_000)] * 20, broken, tail(1_000), broken])
    assert [one is not None for one in found[20:]] == [True, False, True]
    assert "far beyond 21 of the 22 batches before" in (found[-1] or pytest.fail("not told")).what
    weekly = extreme([broken if i % 7 == 6 else tail(1_000) for i in range(70)])
    assert not any(weekly[35:])


def test_where_the_highest_scores_are_not_on_record_nothing_is_told() -> None:
    """Batches that were measured by an earlier release."""
    earlier = replace(tail(1_000), highest=(), highest_by=(), normal=None)
    broken = day([1e6] * 22)
    assert not any(extreme([*[earlier] * 14, *[tail(1_000)] * 6, broken]))
    assert extreme([*[earlier] * 14, *[tail(1_000)] * 7, broken])[-1] is not None
    assert not any(extreme([*[tail(1_000)] * 14, replace(broken, highest=(), normal=None)]))


def test_the_highest_scores_are_kept_as_they_are_and_missed_where_they_are_not_kept() -> None:
    """A row of the ledger's database is JSON."""
    kept = day([3.0, 2.0])
    assert Measures.from_dict(json.loads(json.dumps(kept.to_dict()))) == kept
    state = {k: v for k, v in kept.to_dict().items() if k not in {"highest", "highest_by", "normal"}}
    assert Measures.from_dict(state).reach(1) is None
    assert kept.reach(2) == 2.0
    assert kept.reach(3) is None
