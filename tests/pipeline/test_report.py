"""The pages: the sentence at the top follows from the findings, and no text from data is more than text."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pipeline.config.dataset import Dataset
from pipeline.detection.measures import ColumnDrift
from pipeline.errors import StorageFailed
from pipeline.evaluation.told import Row, Told
from pipeline.monitoring.findings import EXTREME, STRAYS, Finding
from pipeline.monitoring.store import Watched
from pipeline.registry import ModelVersion
from pipeline.report import plots, sheet
from pipeline.report.batch import excess
from pipeline.report.gates import Judgement
from pipeline.report.standing import evidence, recall, standing, withdrawn
from pipeline.report.training import doubts_of
from pipeline.report.trust import ODDEST, doubt, trust
from pipeline.storage.ledger import BatchState
from pipeline.training.experiment import flags_by_day
from tests.pipeline.monitoring_data import QUIET, START

HOSTILE = "<script>alert('x')</script>&\x00\ud800"
STATE = BatchState(
    dataset="sensors", batch_id="b", version=1, status="scored", reason="", fingerprint="", signature="", contract_hash="",
    files=[], notes=[], set_aside={}, n_read=9, n_accepted=9, newest_record_at=None, validated_at=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip
SENSORS = Dataset.model_validate({
    "dataset": "sensors", "incoming": {"path": "x"}, "columns": {"a": {"type": "float", "role": "numeric"}},
    "file": Path("dags/datasets/sensors.yaml"),
})  # fmt: skip
LOST = Finding("missing:b", "alarm", "b: 68.0% of the values are missing", "ask the source")
FLAGS = Finding("flags", "alarm", "259 of 1440 records are flagged, usual are 14", "look at what they share")
ALARM = Finding("drift:a", "alarm", "a: values moved", "ask")
WARNING = Finding("volume", "warning", "half the records", "ask")
NOTICE = Finding("backlog", "notice", "many wait", "review")


@pytest.mark.parametrize(
    ("findings", "n_earlier", "tone", "words"),
    [
        ((), 20, "good", "can be trusted"),
        ((NOTICE,), 20, "good", "can be trusted"),
        ((), 3, "good", "Nothing speaks against"),
        ((), 0, "good", "Nothing speaks against"),
        ((WARNING, NOTICE), 20, "warn", "Look before"),
        (
            (Finding(STRAYS, "warning", "9 records are of another time", "look"),),
            20,
            "warn",
            "Nothing was scored",
        ),
        ((ALARM, WARNING), 20, "bad", "Do not rely"),
        ((FLAGS, WARNING), 20, "bad", "Far more is odd than usual"),
        ((ALARM, FLAGS), 20, "bad", "Far more is odd than usual"),
        ((FLAGS, LOST), 20, "bad", "Do not rely"),
        (None, 0, "warn", "never measured"),
    ],
)
def test_the_first_sentence_follows_from_the_worst_finding(
    findings: tuple[Finding, ...] | None, n_earlier: int, tone: str, words: str
) -> None:
    """A notice says nothing against a night."""
    found = trust(SENSORS, STATE, findings, n_earlier)
    assert found.tone == tone
    assert words in found.headline
    if findings and tone != "good":
        assert findings[0].what[1:] in found.why


def test_what_to_do_about_a_refused_delivery_is_what_may_help() -> None:
    """Records that broke rules can be seen; of another schema there are none to see, and no contract mends a
    file that cannot be read.
    """
    of_schema = replace(STATE, status="refused", reason="column 'fee' is missing", fingerprint="of its bytes")
    either = "have it delivered again; if the data is right and the contract wrong, mend dags/datasets/sensors.yaml"
    assert trust(SENSORS, of_schema, None, 0).next_step == either
    broke = replace(of_schema, set_aside={"missing_value:a": 9})
    look = 'see the rules that its records broke, under "every rule and what was found" on its page; '
    assert trust(SENSORS, broke, None, 0).next_step == look + either  # a missing value is no example
    beyond = replace(of_schema, set_aside={"missing_value:a": 9, "out_of_range:a": 1})
    assert "records broke, with examples, under " in trust(SENSORS, beyond, None, 0).next_step
    empty = replace(of_schema, n_read=0, n_accepted=0)
    assert trust(SENSORS, empty, None, 0).next_step == either
    unread = replace(empty, fingerprint=STATE.signature)
    assert trust(SENSORS, unread, None, 0).next_step == (
        "have it written and delivered again; it is checked anew by itself"
    )


def test_more_flags_than_chance_does_are_said_beside_the_count_where_no_finding_says_so() -> None:
    """84 of 2,647 where 32 are expected are no warning; and 2.96 times is not yet three."""
    now = replace(QUIET, n_records=2_647, n_flagged=84, expected_flagged=32.0)
    one = Watched("b", START, now)
    assert excess(one) == ": 2.6 times as many; days differ by that much, a warning needs 3 times"
    assert excess(replace(one, measures=replace(now, n_flagged=95))).startswith(": 2.9 times")
    assert excess(replace(one, measures=replace(now, n_flagged=40))) == ""
    assert excess(replace(one, findings=(FLAGS,))) == ""


def test_what_follows_a_full_stop_begins_with_a_capital_unless_it_is_a_name() -> None:
    """The shell prints it after the headline."""
    odd = Finding("scores", "alarm", "the batch as a whole scores higher", "look")
    assert trust(SENSORS, STATE, (odd,), 20).why == "The batch as a whole scores higher."
    named = replace(ALARM, column="a")
    assert trust(SENSORS, STATE, (named,), 20).why == "a: values moved."
    for reason, said in (
        ("column 'fee' is missing", "Column 'fee' is missing."),
        ("a.parquet: cut", "a.parquet: cut."),
    ):
        assert trust(SENSORS, replace(STATE, status="refused", reason=reason), None, 9).why == said


def test_where_far_more_is_odd_than_usual_the_columns_behind_it_are_named() -> None:
    """Many flags send nobody to where to look, and what comes first is often all that is read."""
    apart = Finding("correlation:a|b", "warning", "a and b go together differently", "ask", column="a")
    moved = Finding("drift:c", "notice", "c: values moved", "no hurry", column="c")
    said = trust(SENSORS, STATE, (FLAGS, apart, WARNING, moved), 20)
    assert said.headline.startswith("Far more is odd than usual")
    assert said.why == (
        "259 of 1440 records are flagged, usual are 14; a and b go together differently. And 1 more."
    )
    assert trust(SENSORS, STATE, (FLAGS, moved), 20).why == "259 of 1440 records are flagged, usual are 14."
    assert trust(SENSORS, STATE, (apart, WARNING), 20).why == "a and b go together differently. And 1 more."


def test_a_trusted_page_does_not_say_that_columns_lie_as_usual_where_one_moved() -> None:
    moved = Finding("drift:a", "notice", "a: values moved", "no hurry", column="a")
    said = trust(SENSORS, STATE, (moved,), 20)
    assert (said.tone, said.headline) == ("good", "These flags can be trusted")
    assert said.why == (
        "Scores and flags are as in the 20 batches before; what changed in columns is listed below."
    )
    assert trust(SENSORS, STATE, (NOTICE,), 20).why.startswith(
        "Columns, scores and flags are as in the 20 batches"
    )


def test_a_page_does_not_say_that_scores_are_as_before_where_some_are_far_beyond() -> None:
    """Nor that they are, where earlier releases did not note how high scores went."""
    far = Finding(EXTREME, "warning", "22 records score far beyond any of the 20 batches before", "look")
    said = trust(SENSORS, STATE, (far,), 20)
    assert (said.tone, said.headline) == ("warn", ODDEST)
    assert said.why == f"{far.what}."
    assert doubt((far, WARNING)) == "Look before you rely on these flags"
    unknown = trust(SENSORS, STATE, (), 20, is_reach_known=False)
    assert unknown.why.endswith("not compared: too few of these batches have it on record.")
    assert "on record" not in trust(SENSORS, STATE, (), 20).why


def test_a_version_that_misses_most_anomalies_makes_no_quiet_night_trusted() -> None:
    """Few flags are good news only from a model that would have flagged something."""
    scored = replace(STATE, model_version=3)
    quiet = trust(SENSORS, scored, (NOTICE,), 20, misses="it finds 0.0% of the injected anomalies")
    assert (quiet.tone, quiet.headline) == ("warn", "Few flags do not mean few anomalies")
    assert quiet.why == "Version 3 misses most anomalies: it finds 0.0% of the injected anomalies."
    assert quiet.next_step.endswith(": vaewatch versions sensors 3")
    alarmed = trust(SENSORS, scored, (ALARM, WARNING), 20, misses="it finds none")
    assert (alarmed.tone, alarmed.why) == (
        "bad", "a: values moved. And 1 more. Version 3 misses most anomalies: it finds none."
    )  # fmt: skip


@pytest.mark.parametrize(("findings", "n_earlier"), [((), 20), ((NOTICE,), 20), ((), 3), ((WARNING,), 20)])
def test_how_much_a_version_finds_is_always_said_and_no_trust_is_without_it(
    findings: tuple[Finding, ...], n_earlier: int
) -> None:
    """Below half, a headline that speaks for the flags says what it does not speak for; one that warns
    already stays.
    """
    scored = replace(STATE, model_version=3)
    plain = trust(SENSORS, scored, findings, n_earlier)
    assert plain.finds == "How many injected anomalies version 3 finds is not known."
    half = trust(SENSORS, scored, findings, n_earlier, recall=0.5)
    assert half == replace(
        plain,
        finds="When it was judged, version 3 found 50% of the injected anomalies, falsified copies of real records, at its threshold.",
    )
    few = trust(SENSORS, scored, findings, n_earlier, recall=0.187)
    assert "found 19% of the injected anomalies" in few.finds
    if plain.tone != "good":
        assert replace(few, finds=plain.finds) == plain
        return
    said = "Nothing speaks against these flags; many anomalies may be missed"
    assert (few.tone, few.headline) == ("notice", said)
    assert few.next_step.startswith("to find more, have it learn more days (train.window_days), ")
    assert few.next_step.endswith(": vaewatch versions sensors 3")
    assert trust(SENSORS, replace(scored, status="refused"), None, 9, recall=0.1).finds == ""


def test_a_headline_does_not_speak_for_a_week_without_flags() -> None:
    """Green above a finding that says the threshold is too high is what nobody reads on from."""
    few = Finding(
        "few_flags", "warning", "only 3 records are flagged: the threshold is too high", "train again"
    )
    scored = replace(STATE, model_version=3)
    warned = trust(SENSORS, scored, (few, NOTICE), 20, recall=0.9)
    assert (warned.tone, warned.headline) == ("warn", "Few flags do not mean few anomalies")
    assert warned.why == "Only 3 records are flagged: the threshold is too high."
    assert trust(SENSORS, scored, (few, WARNING), 20).headline == "Look before you rely on these flags"
    lasting = replace(few, severity="notice")
    for share in (None, 0.9, 0.1):
        told = trust(SENSORS, scored, (lasting,), 20, recall=share)
        said = "Nothing speaks against these flags; many anomalies may be missed"
        assert (told.tone, told.headline) == ("notice", said)
        assert (told.why, told.next_step) == (warned.why, "train again")


def test_that_a_version_learned_from_the_batch_it_scored_is_said_of_it_alone() -> None:
    """Its records scored lower than those of a batch that it never saw."""
    learned = trust(SENSORS, replace(STATE, model_version=3), (), 20, recall=0.6, is_learned=True)
    assert learned.learned == "This batch was among those that version 3 learned from."
    assert trust(SENSORS, replace(STATE, model_version=3), (), 20, recall=0.6).learned == ""
    refused = replace(STATE, status="refused", model_version=3)
    assert trust(SENSORS, refused, None, 20, is_learned=True).learned == ""


def test_what_was_set_aside_is_told_beside_the_flags() -> None:
    """The oddest values of a day may be beyond a bound: they are no flags, and nobody would look."""
    broke = replace(
        STATE, model_version=3, n_read=1_002, n_accepted=1_000, set_aside={"out_of_range:Redox": 2}
    )
    assert trust(SENSORS, broke, (), 20, recall=0.6).unscored == (
        "2 records were set aside and not scored: out_of_range:Redox 2 "
        f"(vaewatch quarantine show {SENSORS.name} {broke.batch_id})."
    )
    found = Finding("set_aside", "warning", "the contract set 2 aside", "look")
    assert trust(SENSORS, broke, (found,), 20, recall=0.6).unscored == "", "the finding says it"
    whole = replace(broke, n_accepted=1_002, set_aside={})
    assert trust(SENSORS, whole, (), 20, recall=0.6).unscored == ""


def test_what_a_version_finds_is_read_from_its_last_judgement() -> None:
    held = '{"n": 6295, "recall": 0.187, "negative_elbo": 51.4}'
    assert recall(version_with(evaluated_holdout=held)) == 0.187
    assert recall(version_with(evaluated_holdout='{"n": 3}')) is recall(version_with()) is None


def test_flags_of_a_version_that_was_rolled_back_are_not_called_trustworthy() -> None:
    """Somebody had a reason to take it back; unless it serves again."""
    went = {
        "rolled_back_at": "2026-02-12T01:00:00.000+00:00",
        "rolled_back_by": "ann",
        "rolled_back_reason": "too many",
    }
    said = withdrawn(version_with(promoted_at="2026-02-11T01:00:00.000+00:00", **went), 1)
    assert said == "Version 2 was rolled back by ann, 2026-02-12 01:00 UTC: too many"
    found = trust(SENSORS, STATE, (WARNING,), 20, withdrawn=said)
    assert (found.tone, found.why, found.next_step) == (
        "warn", f"{said}.", "score it again: vaewatch score sensors b --force"
    )  # fmt: skip
    assert trust(SENSORS, STATE, (ALARM,), 20, withdrawn=said).tone == "bad"
    assert withdrawn(version_with(promoted_at="2026-02-13T01:00:00.000+00:00", **went), 1) == ""
    assert withdrawn(version_with(**went), 2) == ""
    assert withdrawn(version_with(), 1) == ""


def test_of_strays_nothing_is_said_that_is_about_scores_and_nothing_twice() -> None:
    """None was scored: what the version finds is no matter."""
    strays = replace(STATE, n_accepted=0, set_aside={"outside_period": 9}, model_version=1)
    found = Finding(
        STRAYS, "warning", "9 records are set aside: their time is not the one in its name", "look"
    )
    said = trust(SENSORS, strays, (found,), 20, recall=0.2, is_learned=True)
    assert (said.finds, said.learned, said.unscored) == ("", "", "")
    assert said.why == f"{found.what}."
    whole = trust(SENSORS, strays, (), 20, recall=0.2)
    assert (whole.finds, whole.unscored[:9]) == ("", "9 records")


def test_a_page_of_a_refused_batch_says_what_stands_of_it() -> None:
    """ "Nothing was scored" of a batch whose flags wait for review is half the truth."""
    refused = replace(STATE, status="refused", reason="amount: beyond 9.")
    said = trust(SENSORS, refused, None, 0, stands="its 9 records and 6 flags of before stand")
    assert said.why == "amount: beyond 9. Its 9 records and 6 flags of before stand."


def test_a_refused_delivery_says_why_and_an_accepted_one_that_it_waits() -> None:
    refused = trust(SENSORS, replace(STATE, status="refused", reason="no column fee"), None, 9)
    assert (refused.tone, refused.why) == ("bad", "No column fee.")
    assert refused.next_step.endswith("the contract wrong, mend dags/datasets/sensors.yaml")
    waits = trust(SENSORS, replace(STATE, status="accepted"), None, 9)
    assert (waits.tone, waits.next_step.rpartition(": ")[2]) == ("warn", "vaewatch history sensors")
    ready = trust(SENSORS, replace(STATE, status="accepted"), None, 9, serving=3)
    assert (ready.headline, ready.why) == ("Not scored yet", "Version 3 serves: the next run scores it.")
    assert ready.next_step.endswith("vaewatch score sensors")
    assert trust(SENSORS, STATE, None, 9).next_step.endswith("vaewatch score sensors b --force")


def version_with(**tags: str) -> ModelVersion:
    return ModelVersion("sensors", 2, "r", "k", (), tags, datetime(2026, 1, 1, tzinfo=UTC), {})


def judged(outcome: str, *rows: Row, sentence: str = "", against: str = "") -> Judgement:
    told = Told(
        outcome=outcome, sentence=sentence, heads=("version 2", "beside it"), measured_on="", rows=rows
    )
    return Judgement(dataset="sensors", version=2, told=told, against=against, at="")


def gate(name: str, verdict: str, reason: str, level: str = "required") -> Row:
    return Row(name, level, verdict, "", "", "", "", reason)


def test_the_page_of_a_refused_version_says_so_first_with_the_reason_and_what_to_do() -> None:
    """Its numbers look as good as any other's."""
    rows = (
        gate("collapse", "passed", ""),
        gate("cost", "failed", "it is slow", "advisory"),
        gate("baselines", "failed", "finds 9% where another finds 20%; look at the columns"),
        gate("flag_rate", "failed", "flags 4 times as many"),
    )
    sentence = "baselines: finds 9%; flag_rate: flags 4 times. Likely: it learned too little"
    found = standing(SENSORS, version_with(decision="refuse"), judged("refused", *rows, sentence=sentence))
    assert (found.tone, found.headline) == ("bad", "Refused: finds 9% where another finds 20%")
    assert found.why == (
        "The gate baselines failed. Look at the columns. So did flag_rate: flags 4 times as many. Likely: it learned too little."
    )
    assert found.next_step.startswith("no model serves, and batches wait; ")
    assert "vaewatch promote sensors --version 2 --reason WHY" in found.next_step


def test_the_page_of_a_refusal_that_people_have_to_resolve_lists_what_they_can_do() -> None:
    """As long as nobody says what these days are, every night's training is refused alike."""
    told = replace(judged("refused", gate("recall", "failed", "finds less")).told, ways=("label <b>", "wait"))
    judgement = replace(judged("refused"), told=told, serves=True)
    found = standing(SENSORS, version_with(decision="refuse"), judgement)
    assert "until somebody decides what these days are" in found.next_step
    page = sheet.render("judgement.html", judgement=judgement)
    assert re.findall("<li>(.*?)</li>", page)[:2] == ["label &lt;b&gt;", "wait"]


@pytest.mark.parametrize(
    ("mode", "headline", "next_step"),
    [
        ("automatic", "Passed", "the nightly run promotes it by itself"),
        ("approval", "Passed, and awaits approval", "answer in Airflow (sensors.approve)"),
        ("manual", "Passed, and awaits promotion", "make it champion: vaewatch promote"),
    ],
)
def test_the_page_of_a_version_that_passed_says_what_it_waits_for(
    mode: str, headline: str, next_step: str
) -> None:
    asks = SENSORS.model_copy(update={"promote": SENSORS.promote.model_copy(update={"mode": mode})})
    found = standing(asks, version_with(decision="promote"), judged("passed", against="1"))
    assert (found.tone, found.headline) == ("good", headline)
    assert found.next_step.startswith(next_step)


def test_the_page_of_a_version_says_what_became_of_it_last() -> None:
    """Refused by its gates, promoted by a person, taken back: the last word counts."""
    assert standing(SENSORS, None, None).headline == "Not judged yet"
    tags = {"decision": "refuse", "promoted_at": "2026-02-11T01:00:00.000+00:00", "promoted_by": "ann", "promoted_reason": "to see it"}  # fmt: skip
    found = standing(SENSORS, version_with(**tags), judged("refused"))
    assert (found.tone, found.headline) == ("good", "Promoted 2026-02-11 01:00 UTC: it became champion")
    assert found.why == "By ann: to see it."
    deaf = judged("passed", gate("recall_floor", "failed", "it finds none", "advisory"))
    missing = standing(SENSORS, version_with(**tags), deaf)
    assert (missing.tone, missing.why) == (
        "warn",
        "By ann: to see it. It misses most anomalies: it finds none.",
    )
    back = tags | {"rolled_back_at": "2026-02-12T01:00:00.000+00:00", "rolled_back_by": "bob"}
    assert standing(SENSORS, version_with(**back), deaf).headline == "Rolled back, 2026-02-12 01:00 UTC"
    no = {"decision": "promote", "rejected_at": "2026-02-12T01:00:00.000+00:00", "rejected_by": "bob"}
    rejected = standing(SENSORS, version_with(**no), judged("passed"))
    assert (rejected.tone, rejected.headline) == ("bad", "Rejected, 2026-02-12 01:00 UTC")
    waits = standing(
        SENSORS, version_with(decision="wait"), judged("waiting", sentence="1 of 3 days", against="1")
    )
    assert (waits.headline, waits.why) == ("Waiting in its shadow", "1 of 3 days.")


def test_what_is_on_record_with_a_version_reads_as_words() -> None:
    """An empty list in brackets is no evidence, and nobody reads milliseconds."""
    first = version_with(
        decision="promote",
        decision_notes="[]",
        evaluated_against="",
        evaluated_at="2026-11-21T22:05:41.239+00:00",
        evaluated_holdout='{"n": 6295, "recall": 0.6108, "negative_elbo": 51.4}',
        review='{"review_precision": 0.5, "review_precision_low": 0.4, "review_precision_high": 0.6, "review_judged": 90.0}',
        window="a..b",
    )
    assert evidence(first) == [
        ("decision", "passed"),
        ("evaluated against", "no other"),
        ("evaluated at", "2026-11-21 22:05 UTC"),
        ("evaluated holdout", "6,295 records, 61.1% of the injected anomalies found, 51.40 nats a record"),
        ("review", "precision 0.50 (0.40 to 0.60; 90 judged)"),
    ]
    later = version_with(evaluated_against="1", decision_notes='["cost: high", "churn: high"]')
    assert evidence(later) == [
        ("decision notes", "cost: high; churn: high"),
        ("evaluated against", "version 1"),
    ]


def test_no_text_from_data_becomes_markup(tmp_path: Path) -> None:
    """A category, a column or a reason may hold anything."""
    number = ColumnDrift(
        0.1, 0.0, 0.1, 0.3, 0.0, 0.0, None, counts=(1, 2, 3, 4), usual=(4, 3, 2, 1), bins=(1.0, 2.0, 3.0)
    )
    category = replace(number, shift=None, new=0.1, bins=(HOSTILE, "b", "c"))
    for drift in (number, category):
        drawn = str(plots.column(HOSTILE, drift))
        assert "<script" not in drawn
        assert drawn.startswith("<svg")
    page = sheet.write(tmp_path / "page.html", str(plots.column(HOSTILE, category)))
    assert "&lt;script" in page.read_text(encoding="utf-8")


def test_a_column_without_values_is_not_drawn() -> None:
    empty = ColumnDrift(0.0, 0.0, 0.0, 0.0, 1.0, 0.0, None, counts=(0,), usual=(0,), bins=())
    assert plots.column("a", empty) == ""
    assert plots.line([None, None], ["a", "b"], [False, False], "x") == ""


def test_a_curve_fills_its_box_and_its_numbers_stand_above_it() -> None:
    """A loss is read off the end of its curve; letters in a drawing of any width would be stretched."""
    points = [(float(step), 20.0 if step < 5 else 8.0 + step % 3 / 10) for step in range(100)]
    drawn = str(plots.curve(points, "a loss"))
    words, _, drawing = drawn.partition("<svg")
    assert re.findall(r"<span>([^<]*)", words) == ["at most 20", "ends at 8"]
    assert 'preserveAspectRatio="none"' in drawing
    assert "<text" not in drawing
    line = [tuple(map(float, pair)) for pair in re.findall(r"[ML]([\d.]+) ([\d.]+)", drawing)]
    assert (line[0][0], line[-1][0]) == (0, plots.WIDE)
    assert all(0 < y < plots.HIGH for _, y in line)
    begun = str(plots.curve([(0.0, 900.0), *points[1:]], "a loss"))
    assert "<span>begins above 20, cut there</span>" in begun


def test_a_page_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(StorageFailed, match="could not be written"):
        sheet.write(tmp_path / "page.html", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


SIX_DAYS = np.repeat(np.arange(6), 1000)


def test_a_training_says_where_days_of_an_event_calibrate_it() -> None:
    """A sensor fails for an afternoon among the newest days: that is no usual day, and its owner is told."""
    flagged = np.zeros(6000, bool)
    flagged[3100:3190], flagged[::60] = True, True
    by_day = flags_by_day(flagged, SIX_DAYS, 0.02)
    assert by_day == {
        "calibration_days": 6,
        "calibration_days_unusual": 1,
        "calibration_flags_meant_a_day": 20.0,
        "calibration_flags_median_day": 17.0,
        "calibration_flags_largest_day": 105.0,
    }
    (said,) = doubts_of(by_day, [])
    assert said.startswith(
        "1 of the 6 newest days of the window, which calibrate the threshold, has 105 records above it where 20"
    )


def test_a_training_says_where_usual_days_hardly_reach_the_threshold() -> None:
    """Half of the newest days were unusual: nobody can tell any more what is usual."""
    flagged = np.zeros(6000, bool)
    flagged[:3000:1000], flagged[3000::25] = True, True
    (said,) = doubts_of(flags_by_day(flagged, SIX_DAYS, 0.045), [])
    assert said.startswith(
        "of the days that calibrate the threshold, the median one flags 20 where 45 are meant"
    )


def test_days_that_differ_by_chance_are_no_reason_to_doubt() -> None:
    """One needless doubt in a million trainings: counts of twenty a day, of one, and of too few days."""
    random = np.random.default_rng(0)
    for rate in (0.02, 0.001):
        for _ in range(200):
            flagged = random.random(6000) < rate
            assert doubts_of(flags_by_day(flagged, SIX_DAYS, rate), []) == []
    assert doubts_of(flags_by_day(np.ones(50, bool), np.zeros(50), 0.02), []) == []


def test_a_rollback_that_a_promotion_overruled_is_no_evidence_any_more() -> None:
    """Of what became of a version the last word holds; the other way round both are told."""
    first, second = "2026-01-02T00:00:00.000+00:00", "2026-01-03T00:00:00.000+00:00"
    for promoted, back, told in ((second, first, False), (first, second, True)):
        tags = {
            "promoted_at": promoted,
            "promoted_by": "ann",
            "rolled_back_at": back,
            "rolled_back_by": "bob",
        }
        found = dict(evidence(version_with(**tags)))
        assert found["promoted by"] == "ann"
        assert ("rolled back by" in found, "rolled back at" in found) == (told, told)
