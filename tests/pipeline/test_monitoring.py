"""Drift: reported where there is some, not elsewhere, and not for what chance does."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binom

from pipeline.config.dataset import Dataset
from pipeline.detection.measures import ColumnDrift, Measures
from pipeline.monitoring.findings import Finding, gathered, worst
from pipeline.monitoring.history import Past
from pipeline.monitoring.judgement import FAR, judge, times_expected
from pipeline.monitoring.movement import is_elsewhere, moved_words
from pipeline.notify.alerts import can_wait
from pipeline.report.trust import doubt
from pipeline.sample import DRIFTS, SamplePlan
from tests.bench import monitoring as bench
from tests.pipeline.monitoring_data import PLAIN, QUIET, START, STILL, moved, told

FALSE_ALARM_RATE = 1e-6


@pytest.mark.parametrize("size", [1_500, 5_000])
def test_drift_is_told_on_its_day_and_of_its_column_and_of_no_other(tmp_path: Path, size: int) -> None:
    """Thirty days after training, four of which drift. False alarms over clean days: make
    bench-monitoring.
    """
    plan = SamplePlan(days=60, records_per_day=size, hostile=False, drift=True)
    found = {on.isoformat(): findings for on, findings in bench.days(plan, tmp_path) if findings}
    planted = {plan.batch_id(day): DRIFTS[name] for name, day in plan.drift_days().items()}
    named = {
        on: sorted({part for finding in findings for part in finding.key.partition(":")[2].split("|")})
        for on, findings in found.items()
    }
    assert named == {on: sorted(columns) for on, columns in planted.items()}


def test_what_is_usual_on_a_weekday_is_not_told_of_and_the_same_on_another_is() -> None:
    """A shop that is closed on Sundays."""
    days = [moved(0.04 if (START + timedelta(days=i)).weekday() == 6 else 0.0) for i in range(35)]
    assert not any(told(days)[7:])
    days[32] = moved(0.04)  # a Friday
    assert [i for i, findings in enumerate(told(days)) if i > 7 and findings] == [32]


def test_drift_that_stays_is_told_every_day_until_it_is_usual() -> None:
    """A day that drifted must not make the next one look normal; a month of them does."""
    days = [moved(0.0)] * 28 + [moved(0.08)] * 60
    found = told(days)
    assert all(not findings for findings in found[:28])
    assert all(findings for findings in found[28:49])
    assert not any(found[80:])


def test_with_little_history_only_gross_drift_is_told() -> None:
    """On the second day nobody knows what is usual."""

    def second(by: float) -> Measures:
        return replace(moved(by), above=None)  # nor what is usual of the scores

    assert not told([moved(0.0), second(0.04)])[1]
    assert worst(told([moved(0.0), second(0.2)])[1]) == "notice"
    assert worst(told([moved(0.0), second(0.5)])[1]) == "warning"


def test_a_finer_histogram_than_a_column_deserves_is_no_drift() -> None:
    """Rates of exchange move daily by a hundredth of what they differ by: no two days share a value."""
    fine = replace(QUIET, columns={"level": replace(STILL, divergence=0.3, shift=0.02)})
    assert not told([QUIET] * 14 + [fine])[-1]


def test_where_medians_read_alike_another_quantile_says_what_moved() -> None:
    """ "The median from 0 to 0" is no headline."""
    wider = replace(STILL, shift=0.6, counts=(10, 10, 40, 20, 20), usual=(1, 2, 94, 2, 1), bins=(-2, 0, 0, 2))
    assert moved_words(wider).endswith(", 20.0% of them above 2 (in training 1.0%)")
    same = replace(wider, counts=wider.usual)
    assert moved_words(same) == "values moved by 0.6 standard deviations"
    assert "the median from" in moved_words(replace(wider, counts=(1, 2, 2, 94, 1)))


def test_whole_numbers_move_by_whole_numbers_and_one_is_one() -> None:
    """A median of 797.7 pieces is nobody's, and "1 standard deviations" nobody's English."""
    pieces = replace(STILL, shift=1.0, counts=(0, 1, 2, 9, 1), usual=(0, 9, 2, 1, 1), bins=(0, 10, 21, 30))
    words = moved_words(pieces, whole=True)
    assert words == "values moved by 1 standard deviation, the median from 7 to 24"
    assert "from 7.222 to " in moved_words(pieces)


SCENES: list[tuple[str, Measures, str]] = [
    ("flags", replace(QUIET, n_flagged=150), "150 of 1,000 records are flagged"),
    ("scores", replace(QUIET, above=0.72), "scores higher than usual: 72%"),
    ("tail", replace(QUIET, tail=0.08), "8.0% of the records have a p-value"),
    ("set_aside", replace(QUIET, n_read=1_100, n_set_aside=100), "100 of 1,100 records aside, 9.1%"),
    (
        "volume",
        replace(QUIET, n_read=200, n_records=200, n_flagged=4),
        "200 records, 0.2 times the usual 1,000",
    ),
    ("champion", replace(QUIET, champion_days=44.0), "the champion is 44 days old"),
    (
        "backlog",
        replace(QUIET, backlog=900),
        "900 flagged records had waited for a person for more than a day",
    ),
    ("reference", replace(QUIET, columns={}), "drift of columns is not measured"),
    (
        "missing:level",
        replace(QUIET, columns={"level": replace(STILL, missing=0.2)}),
        "level: 20.0% of the values are missing (usually 0.0%)",
    ),
    (
        "new:level",
        replace(QUIET, columns={"level": replace(STILL, new=0.05, new_values=("x<y",))}),
        "5.0% of the values are rare or new to the model (usually 0.0%): 'x<y'",
    ),
    (
        "correlation:flow|level",
        replace(QUIET, columns={"level": replace(STILL, correlation=0.9, other="flow", r=0.1, usual_r=1.0)}),
        "level and flow go together differently: correlation 0.10 (in training 1.00)",
    ),
]


@pytest.mark.parametrize(("key", "measures", "words"), SCENES, ids=[key for key, *_ in SCENES])
def test_each_thing_that_goes_wrong_is_told_by_itself_with_what_to_do(
    key: str, measures: Measures, words: str
) -> None:
    """After three weeks on which nothing happened."""
    *calm, last = told([*[QUIET] * 21, measures])
    assert not any(calm)
    assert [finding.key for finding in last] == [key]
    assert words in last[0].what
    assert last[0].next_step


def test_who_is_told_of_records_set_aside_is_told_how_to_see_them() -> None:
    """Those of this batch: what can be typed, and no list to search."""
    *_, (found,) = told([*[QUIET] * 21, replace(QUIET, n_read=1_100, n_set_aside=100)])
    assert found.next_step.endswith(f": vaewatch quarantine show sensors {START + timedelta(days=21)}")


PLANT = Dataset.model_validate({
    "dataset": "plant",
    "incoming": {"path": "."},
    "time": "at",
    "columns": {
        "at": {"type": "timestamp", "role": "context"},
        "Redox": {"type": "float", "role": "ignored"},
        "pH": {"type": "float", "role": "ignored"},
        "load": {"type": "float", "role": "numeric"},
    },
    "derived": {
        "Redox_change": '"Redox" - lag("Redox") OVER by_time',
        "Redox_day": "Redox - median(Redox) OVER the_day",
        "pH_change": '"pH" - lag("pH") OVER by_time',
    },
})


def plant(above: float = 0.5, **columns: ColumnDrift) -> Measures:
    still = dict.fromkeys(("load", *PLANT.derived), STILL)
    return replace(QUIET, above=above, columns=still | columns)


FAR_OUT = replace(STILL, divergence=0.4, shift=1.6)
APART = replace(STILL, correlation=0.9, other="pH_change", r=0.9, usual_r=0.0)


def test_nobody_asks_the_source_about_a_column_that_it_does_not_have() -> None:
    """What is derived is computed here: the columns behind it are named, and what to look for there."""
    days = [plant()] * 21
    (own,) = told([*days, plant(load=FAR_OUT)], dataset=PLANT)[-1]
    assert own.next_step.startswith("ask the source what changed in 'load'; if it is there to stay")
    (derived,) = told([*days, plant(Redox_day=FAR_OUT)], dataset=PLANT)[-1]
    assert derived.what.startswith("Redox, seen in Redox_day: values moved by 1.6 standard deviations")
    assert derived.next_step.startswith("look at 'Redox' in the delivery for jumps, spikes or a standstill")
    (pair,) = told([*days, plant(Redox_day=APART)], dataset=PLANT)[-1]
    assert pair.what.startswith("Redox and pH: Redox_day and pH_change go together differently")
    assert "look at 'Redox' and 'pH' in the delivery for jumps or spikes that only one" in pair.next_step
    assert not any("ask the source" in finding.next_step for finding in (derived, pair))


def test_no_training_is_advised_for_a_batch_that_the_model_learned() -> None:
    """It would learn the same again. Of scores, a column, a derived one, a pair of either kind."""
    scenes = (plant(above=0.9), plant(load=FAR_OUT), plant(Redox_day=FAR_OUT), plant(Redox_day=APART), plant(load=replace(APART, other="flow")))  # fmt: skip
    for measures in scenes:
        (new,), (learned,) = (
            told([*[plant()] * 21, replace(measures, learned=learned)], dataset=PLANT)[-1]
            for learned in (False, True)
        )
        assert new.next_step.endswith("; if it is there to stay, train again: vaewatch train plant")
        assert learned.next_step.endswith(
            "; if it is a fault, have the batch delivered again: the model learned from it as it is"
        )
        assert "train again" not in learned.next_step


def test_what_has_one_cause_is_one_finding_that_names_the_delivered_column_first() -> None:
    """A sensor moves, and with it all that is computed from it, alone and beside other sensors."""
    moved_day = replace(APART, divergence=0.5, shift=2.0)
    found = told([*[plant()] * 21, plant(load=FAR_OUT, Redox_day=moved_day, Redox_change=FAR_OUT)], dataset=PLANT)[-1]  # fmt: skip
    assert len(found) == 4
    of_redox, of_load = sorted(gathered(found, PLANT), key=lambda f: f.column)
    assert of_redox.what.startswith("Redox, seen in Redox_day: values moved by 2 standard deviations")
    assert of_redox.what.endswith("; likewise Redox_change, Redox_day with pH_change")
    assert of_load.what.startswith("load: values moved")
    silent = plant(Redox_day=replace(STILL, missing=0.5), Redox_change=replace(STILL, missing=0.5))
    (lost,) = gathered(told([*[plant()] * 21, silent], dataset=PLANT)[-1], PLANT)
    assert lost.what.startswith("1 of 3 columns: 50.0% of what the model reads of it is missing")
    assert lost.next_step == "ask the source what changed in Redox"


@pytest.mark.parametrize(("above", "severity"), [(0.5, "warning"), (0.7, "alarm"), (0.3, "alarm")])
def test_what_does_not_show_in_the_scores_weighs_less(above: float, severity: str) -> None:
    """Scores that lie lower than usual are no comfort: records that stand still hide what is odd."""
    days = [plant()] * 21
    (drift,) = (f for f in told([*days, plant(above, load=FAR_OUT)], dataset=PLANT)[-1] if f.column)
    assert drift.severity == severity
    near = replace(FAR_OUT, divergence=0.02, shift=0.13)
    (slight,) = (f for f in told([*days, plant(above, load=near)], dataset=PLANT)[-1] if f.column)
    assert slight.severity == ("notice" if severity == "warning" else "warning")
    assert slight.next_step.startswith("no hurry, scores and flags are as usual: ask") == (above == 0.5)


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (replace(FAR_OUT, missing=0.5), "values moved by 1.6"),
        (replace(FAR_OUT, counts=(0, 1000, 0), usual=(300, 400, 300), bins=(0.0, 1e-300)), "hardly varies, 100.0% of the values are 0 (in training 40.0%)"),
    ],
)  # fmt: skip
def test_scores_that_lie_as_usual_say_nothing_of_what_is_lost_or_stands_still(
    odd: ColumnDrift, words: str
) -> None:
    """A sensor that is stuck, or silent, raises no score, and hides what would have been odd in it."""
    found = told([*[plant()] * 21, plant(load=odd)], dataset=PLANT)[-1]
    (drift,) = (finding for finding in found if finding.kind == "drift")
    assert drift.severity == "alarm"
    assert words in drift.what


STUCK_BEYOND = replace(FAR_OUT, counts=(0, 0, 1000), usual=(500, 9000, 500), bins=(-2.0, 2.0))


@pytest.mark.parametrize(
    ("counts", "extent", "words"),
    [
        ((0, 0, 1000), (9.0, 9.0, 9.0), "hardly varies, 99% of the values are 9 (in training, 5.0% are 2 or more)"),
        ((1000, 0, 0), (-9.0, -8.9, -8.7), "hardly varies, 99% of the values are between -9 and -8.7 (in training, 5.0% are below -2)"),
        ((0, 0, 1000), (3.0, 90.0, 9000.0), "values moved by 1.6 standard deviations or more, the median from 0 to 90"),
        ((1000, 0, 0), (-9000.0, -90.0, -3.0), "values moved by 1.6 standard deviations or more, the median from 0 to -90"),
        ((0, 1000, 0), (-1.9, 0.0, 1.9), "values moved by 1.6 standard deviations, the 90 % quantile from 1.778 to 1.6"),
        ((0, 0, 1000), (None, None, None), "values moved by 1.6 standard deviations or more, 100.0% of them above 2 (in training 5.0%)"),
    ],
)  # fmt: skip
def test_only_values_that_are_close_together_hardly_vary(
    counts: tuple[int, ...], extent: tuple[float | None, ...], words: str
) -> None:
    """A bin without an end holds values of any size; earlier releases did not keep which."""
    low, median, high = extent
    odd = replace(STUCK_BEYOND, counts=counts, low=low, median=median, high=high)
    assert moved_words(odd) == words
    (drift,) = told([*[plant()] * 21, plant(load=odd)], dataset=PLANT)[-1]
    assert drift.severity == ("alarm" if words.startswith("hardly") else "warning")  # scores are as usual


def test_a_column_in_another_unit_is_no_event_not_even_on_the_second_night() -> None:
    """Flags are far too many either way: an event moves some of the records, a unit all of them."""
    unit = replace(STUCK_BEYOND, low=3.0, median=90.0, high=9000.0)
    event = replace(unit, counts=(0, 500, 500))
    for odd, headline in ((unit, "Do not rely on"), (event, "Far more is odd than usual")):
        night = replace(plant(0.9, load=odd, Redox_day=odd), n_flagged=400)
        for found in told([*[plant()] * 21, night, night], dataset=PLANT)[21:]:
            assert doubt(gathered(found, PLANT)).startswith(headline)
    mostly = replace(unit, counts=(0, 1000, 0), usual=(200, 9600, 200))
    assert not is_elsewhere(mostly)  # where most of training's were


def test_what_lasts_is_told_with_the_day_it_began_and_weighs_less_until_it_worsens() -> None:
    """The second page that opens with the same is not read."""

    def lost(share: float) -> Measures:
        return plant(load=replace(STILL, missing=share))

    days = [*[plant()] * 56, lost(0.05), lost(0.05), lost(0.5), lost(0.5), plant(), lost(0.05)]
    found = told(days, dataset=PLANT)
    said = [[(f.severity, f.since) for f in one] for one in found[56:]]
    first = (START + timedelta(days=56)).isoformat()
    assert said == [
        [("warning", "")], [("notice", first)], [("alarm", first)], [("warning", first)], [], [("warning", "")],
    ]  # fmt: skip
    assert gathered(found[57], PLANT)[0].what.endswith(f"(usually 0.0%); lasting since {first}")
    yesterday = Past("b", START + timedelta(days=57), days[57], found[57])  # all that is remembered
    (still,) = judge(lost(0.5), [yesterday], START + timedelta(days=58), dataset=PLANT, batch_id="c")
    assert still.since == first


def test_excess_of_flags_is_as_grave_on_the_second_night() -> None:
    """An event that goes on flags other records every night."""
    found = told([*[QUIET] * 21, *[replace(QUIET, n_flagged=90)] * 3])
    assert [[(f.key, f.severity) for f in one] for one in found[21:]] == [[("flags", "warning")]] * 3


def test_three_times_the_flags_expected_are_told_whatever_earlier_days_did() -> None:
    """So a page may say of fewer that a warning needs three times. Days of 0 to 100 flags, 20 expected."""
    random = np.random.default_rng(0)
    for n_earlier in (0, 3, 7, 30):
        earlier = [replace(QUIET, n_flagged=int(n)) for n in random.integers(0, 101, n_earlier)]
        for n_flagged, times in ((20, None), (25, None), (50, 2.5), (61, 3.05), (90, 4.5)):
            now = replace(QUIET, n_flagged=n_flagged)
            is_told = any(finding.key == "flags" for finding in told([*earlier, now])[-1])
            assert times_expected(now) == (times and pytest.approx(times))
            assert not times or times < FAR or is_told
    assert times_expected(replace(QUIET, n_records=50, expected_flagged=1.0, n_flagged=4)) is None  # chance


def test_a_batch_that_lies_nearer_to_training_than_usual_is_no_drift() -> None:
    """It is what the model learned."""
    assert not told([*[moved(0.3)] * 21, moved(0.05)])[-1]


def test_days_that_wander_without_weekdays_are_seldom_told() -> None:
    """Bounds come from how far earlier days lay from what the others foretold: three equal weekdays that
    agree by chance promise nothing. Divergences of a wandering column: independent, with a long tail.
    """
    n_told, seeds, days = 0, 20, 36
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        found = told([moved(float(by)) for by in random.exponential(0.05, days).clip(0, 0.99)])
        n_told += sum(bool(one) for one in found[14:])
    assert n_told <= binom.isf(FALSE_ALARM_RATE, seeds * (days - 14), 0.005)


def test_an_outage_of_a_week_does_not_make_full_columns_odd() -> None:
    """Weekdays count where they foretell better than all days do."""
    silent = [replace(QUIET, columns={"level": replace(STILL, missing=1.0)})] * 8
    assert not any(told([*[QUIET] * 28, *silent, *[QUIET] * 42])[36:])


def test_a_batch_is_odd_as_a_whole_by_what_its_own_dataset_does_and_only_upwards() -> None:
    """Where 39 % above a normal one is every day's, so is tonight's; a quieter batch is not odd to a
    reader.
    """
    usual, quieter = replace(QUIET, above=0.39), replace(QUIET, above=0.2)
    assert not any(told([usual] * 14 + [quieter]))
    assert [finding.key for finding in told([usual] * 14 + [replace(QUIET, above=0.55)])[-1]] == ["scores"]
    assert not told([replace(QUIET, above=0.65)])[0]  # nobody knows yet what is usual
    assert worst(told([replace(QUIET, above=0.85)])[0]) == "warning"


def test_five_times_the_budget_is_told_however_widely_days_differ() -> None:
    """A noisy week excuses much; it does not excuse a review budget that is blown."""
    noisy = [replace(QUIET, n_flagged=n) for n in (43, 21, 13, 10, 24, 6, 12)]
    *calm, blown = told([*noisy, replace(QUIET, n_flagged=100)])
    assert not any(calm)
    assert [(finding.key, finding.severity) for finding in blown] == [("flags", "warning")]
    assert "100 of 1,000 records are flagged where 20 are expected" in blown[0].what
    assert worst(told([replace(QUIET, n_flagged=190)])[0]) == "alarm"  # with no history, too
    both = told([*noisy, replace(moved(0.03), n_flagged=100)])[-1]
    assert [(f.key, f.severity) for f in both] == [
        ("flags", "warning"),
        ("drift:level", "warning"),
    ]  # as a reader sees them


def test_a_week_that_flags_next_to_nothing_is_no_good_news() -> None:
    """An event calibrated the threshold, which is too high; a single quiet day is just quiet."""
    silent = replace(QUIET, n_flagged=2)
    found = told([QUIET] * 7 + [silent] * 9)
    assert not any(found[:13])
    assert [(f.key, f.severity) for f in found[13]] == [("few_flags", "warning")]
    assert (
        "only 14 records of the last 7 batches are flagged; normal records would give 140"
        in found[13][0].what
    )
    assert not any(told([replace(QUIET, n_flagged=0, expected_flagged=2.0)] * 9)), (
        "14 expected: too few to say"
    )
    empty = replace(silent, n_flagged=0, columns={"level": replace(STILL, missing=1.0)})
    assert not any(f.key == "few_flags" for one in told([QUIET] * 7 + [empty] * 9) for f in one)


def test_too_few_flags_are_told_once_for_as_long_as_they_go_on() -> None:
    """A batch with its flags between two without: it is the same threshold, and no news the day after."""
    silent, usual = replace(QUIET, n_flagged=0), replace(QUIET, n_flagged=20)
    found = told([QUIET] * 7 + [silent] * 8 + [usual] + [silent] * 4 + [usual] * 9 + [silent] * 9)
    severities = {i: f.severity for i, one in enumerate(found) for f in one}
    assert {f.key for one in found for f in one} == {"few_flags"}
    assert severities[12] == "warning"
    assert 15 not in severities  # it has its flags
    again = max(i for i, severity in severities.items() if severity == "warning")
    assert again > 29  # after a week and more with flags, it is news
    assert [i for i, severity in severities.items() if severity == "warning"] == [12, again]
    (after,) = found[16]
    assert (after.severity, after.since) == ("notice", (START + timedelta(days=12)).isoformat())


def test_too_few_flags_of_days_long_gone_are_a_notice_without_an_alert() -> None:
    """A first run over a history: the newest batch alone says what its threshold does today."""
    old = replace(QUIET, n_flagged=0, is_newest=False)
    found = told([old] * 20 + [replace(old, is_newest=True)])
    assert {f.severity for one in found[:20] for f in one} == {"notice"}
    assert "the threshold was too high for them" in found[10][0].what
    assert found[10][0].next_step.endswith(": vaewatch report sensors")
    assert [(f.severity, f.since) for f in found[20]] == [
        ("warning", (START + timedelta(days=6)).isoformat())
    ]
    assert all(can_wait(f) for one in found[:20] for f in one)
    assert not can_wait(found[20][0])


def test_a_small_batch_is_not_called_odd_for_what_chance_does() -> None:
    """Three flagged of forty is what a rate of 2 % gives once in twenty nights."""
    small = replace(
        QUIET,
        n_records=40,
        n_sampled=40,
        n_read=40,
        n_flagged=3,
        expected_flagged=0.8,
        tail=0.05,
        above=0.58,
        n_set_aside=1,
    )
    assert not any(told([small] * 21))
    after = told([QUIET] * 21 + [small])[-1]
    assert {finding.key for finding in after} == {"volume"}


def test_a_source_that_fails_is_told_once_and_not_column_by_column() -> None:
    """Twenty-seven lines that say the same hide the one that does not."""
    alike = [Finding(f"drift:c{i}", "alarm", f"c{i}: values moved", "ask", column=f"c{i}") for i in range(12)]
    many = Finding("flags", "alarm", "many", "look")
    shown = gathered([many, *alike], PLAIN)
    assert [finding.key for finding in shown] == ["flags", "drift:c0"]
    assert "likewise 11 more: c1, c2" in shown[1].what
    assert shown[1].what.endswith("…")
    assert gathered(alike[:5], PLAIN) == alike[:5]


def test_missing_values_are_told_of_the_columns_that_are_delivered() -> None:
    """A plant's sensors fall silent: nobody there knows of what is derived from them."""
    names = [f"level_{i}" for i in range(1, 7)]
    sensors = Dataset.model_validate({
        "dataset": "sensors",
        "incoming": {"path": "."},
        "time": "at",
        "columns": {
            "at": {"type": "timestamp", "role": "context"},
            "level": {"type": "float", "role": "ignored"},
            "flow": {"type": "float", "role": "numeric"},
            "site": {"type": "string", "role": "categorical"},
        },
        "derived": dict.fromkeys(names, '"level" - lag(LEVEL) OVER by_time'),
    })
    silent = {name: replace(STILL, missing=1.0) for name in ("flow", "site", *sensors.derived)}
    *_, found = told(
        [replace(QUIET, columns=dict.fromkeys(silent, STILL))] * 14 + [replace(QUIET, columns=silent)],
        dataset=sensors,
    )
    (shown,) = gathered(found, sensors)
    assert (
        shown.what
        == "all 3 columns: 100.0% of what the model reads of them is missing (usually 0.0%): level, flow, site"
    )
