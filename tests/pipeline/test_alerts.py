"""What is found in a batch is stored with it, and sent once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from pipeline.config.dataset import Dataset
from pipeline.config.settings import Settings
from pipeline.detection.measures import Measures
from pipeline.installation import Installation
from pipeline.monitoring import store as measured
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.judgement import judge
from pipeline.monitoring.watch import watch
from pipeline.notify import alerts
from pipeline.registry import ModelVersion
from pipeline.storage.ledger import BatchState, Ledger
from tests.pipeline.monitoring_data import PLAIN, QUIET, START, moved

if TYPE_CHECKING:
    from pipeline.detection.detector import Detector


def test_a_batch_that_is_measured_again_replaces_itself(store: Ledger) -> None:
    """The same numbers come back, in order of time, on either database."""

    def watched(i: int, measures: Measures) -> measured.Watched:
        day, at = START + timedelta(days=i), datetime(2026, 2, 1, tzinfo=UTC)
        name = day.isoformat()
        findings = judge(measures, [], day, dataset=PLAIN, batch_id=name)
        return measured.Watched(name, day, measures, findings, model_version=3, measured_at=at)

    first, second, again = watched(0, moved(0.0)), watched(1, moved(0.3)), watched(0, QUIET)
    for one in (second, first, again):
        measured.replace(store, "sensors", one)
    assert measured.one(store, "sensors", first.batch_id) == again
    assert measured.before(store, "sensors", second.day, second.batch_id) == [again]
    assert measured.newest(store, "sensors", 5) == [again, second]
    strays = replace(second, batch_id=f"{second.batch_id}_undated")
    measured.replace(store, "sensors", strays)
    assert measured.newest(store, "sensors") == [strays]
    assert measured.newest(store, "sensors", 5, strays=False) == [again, second]
    assert measured.one(store, "other", first.batch_id) is None


DRIFT, WORSE = (
    Finding("drift:a", "warning", "a moved", "ask"),
    Finding("drift:a", "alarm", "a moved far", "ask"),
)
OTHER = Finding("flags", "alarm", "many", "look")


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    here = Installation(Settings(home=tmp_path, datasets=tmp_path))
    yield here
    here.close()


def messages(place: Installation, per_day: Sequence[tuple[Finding, ...]], dataset: Dataset) -> list[str]:
    """What is sent while batches with these findings are scored one after the other."""
    file = place.settings.home / "alerts.txt"
    for i, findings in enumerate(per_day):
        day = START + timedelta(days=i)
        at = datetime(2026, 2, 1, tzinfo=UTC)
        one = measured.Watched(day.isoformat(), day, QUIET, findings, model_version=1, measured_at=at)
        measured.replace(place.ledger, "sensors", one)
        alerts.tell(place, dataset, pytest.fail)
    return file.read_text(encoding="utf-8").splitlines() if file.exists() else []


SENT = PLAIN.model_copy(update={"review": PLAIN.review.model_copy(update={"digest_file": "alerts.txt"})})


def test_the_same_finding_is_told_once_until_it_clears_or_worsens(place: Installation) -> None:
    """Somebody who is told every night of the same stops reading."""
    days = [(DRIFT,), (DRIFT,), (WORSE,), (WORSE, OTHER), (DRIFT,), (), (DRIFT,)]
    sent = messages(place, days, SENT)
    said = [line.strip() for line in sent if line.startswith("  ") and ": " in line and "next" not in line]
    assert said == ["warning: a moved", "alarm: a moved far", "alarm: many", "warning: a moved"]
    assert [line for line in sent if "next:" in line] == [
        "    next: ask",
        "    next: ask",
        "    next: look",
        "    next: ask",
    ]
    assert sum(line.rstrip().endswith("run.html") for line in sent) == 4


def test_a_batch_that_is_judged_again_while_people_are_told_keeps_its_judgement(place: Installation) -> None:
    """A message takes seconds, and a backlog is scored in parallel: what is new by then is told next time."""
    unheard = PLAIN.model_copy(update={"review": PLAIN.review.model_copy(update={"webhook": "NO_ADDRESS"})})
    at = datetime(2026, 2, 1, tzinfo=UTC)
    one = measured.Watched(START.isoformat(), START, QUIET, (DRIFT,), model_version=1, measured_at=at)
    again = replace(one, measures=moved(0.3), findings=(OTHER, DRIFT))
    measured.replace(place.ledger, "sensors", one)
    alerts.tell(place, unheard, lambda _: measured.replace(place.ledger, "sensors", again))
    assert measured.one(place.ledger, "sensors", one.batch_id) == replace(
        again, findings=(OTHER, replace(DRIFT, told=True))
    )


def test_what_moved_without_effect_waits_for_a_reader_of_the_page(place: Installation) -> None:
    """Nobody is woken for what does not touch tonight's flags."""
    quiet = replace(DRIFT, severity="notice")
    assert not messages(place, [(quiet,), (quiet,)], SENT)
    assert "warning: a moved" in "".join(messages(place, [(quiet,), (DRIFT,)], SENT))


def test_what_was_told_is_not_told_again_by_another_process_and_what_was_not_is(place: Installation) -> None:
    """A step that was killed before it told leaves it to the next."""
    assert len(messages(place, [(DRIFT,)], SENT)) == 4
    alerts.tell(place, SENT, pytest.fail)
    day = START + timedelta(days=1)
    later = measured.Watched(
        day.isoformat(), day, QUIET, (OTHER,), model_version=1, measured_at=datetime.now(UTC)
    )
    measured.replace(place.ledger, "sensors", later)
    alerts.tell(place, SENT, pytest.fail)
    text = (place.settings.home / "alerts.txt").read_text(encoding="utf-8")
    assert (text.count("a moved"), text.count("many")) == (1, 1)


def test_what_was_found_in_a_backlog_is_told_together_and_of_the_newest_batch_by_itself(
    place: Installation,
) -> None:
    """A first night's thirty batches are not thirty messages; and a line that only counts flags would have to
    be looked up, day by day: it names the columns, too.
    """
    apart = Finding("correlation:b|c", "warning", "b and c go together differently", "ask", column="b")
    for i, findings in enumerate([(DRIFT,), (OTHER, apart), (), (WORSE,)]):
        day = START + timedelta(days=i)
        at = datetime(2026, 2, 1, tzinfo=UTC)
        one = measured.Watched(day.isoformat(), day, QUIET, findings, model_version=1, measured_at=at)
        measured.replace(place.ledger, "sensors", one)
    alerts.tell(place, SENT, pytest.fail)
    alerts.tell(place, SENT, pytest.fail)
    first, second, last = ((START + timedelta(days=i)).isoformat() for i in (0, 1, 3))
    lines = (place.settings.home / "alerts.txt").read_text(encoding="utf-8").splitlines()
    assert lines[0].endswith(f"sensors {first} to {second}: 1 alarm, 2 warnings on 2 batches")
    assert lines[1:3] == [
        f"  alarm: {second}: many; b and c go together differently",
        f"  warning: {first}: a moved",
    ]
    assert lines[4].endswith(f"sensors {last}: 1 alarm")
    assert sum(" UTC " in line for line in lines) == 2


STRAY = Finding("strays", "warning", "4 records are of another time", "look")


def put(place: Installation, *batches: tuple[str, tuple[Finding, ...]]) -> None:
    """Batches as they are measured: names that begin with their day."""
    at = datetime(2026, 2, 1, tzinfo=UTC)
    for name, findings in batches:
        day = date.fromisoformat(name[:10])
        one = measured.Watched(name, day, QUIET, findings, model_version=1, measured_at=at)
        measured.replace(place.ledger, "sensors", one)


def test_strays_are_not_the_newest_batch_in_whose_place_messages_would_tell_of_them(
    place: Installation,
) -> None:
    """They share the day of the batch that they were cut from, and their name comes after its own."""
    put(place, ("2026-01-01", (OTHER,)), ("2026-01-02", (WORSE,)), ("2026-01-02_undated", (STRAY,)))
    alerts.tell(place, SENT, pytest.fail)
    lines = (place.settings.home / "alerts.txt").read_text(encoding="utf-8").splitlines()
    told = [line.partition(" UTC ")[2] for line in lines if " UTC " in line]
    assert told == [
        "sensors 2026-01-01 to 2026-01-02_undated: 1 alarm, 1 warning on 2 batches",
        "sensors 2026-01-02: 1 alarm",
    ]


def test_strays_between_two_days_do_not_make_what_lasts_news_again(place: Installation) -> None:
    """Nor are strays known because there were others before."""
    days = ("2026-01-01", "2026-01-02")
    for day in days:
        put(place, (day, (DRIFT,)), (f"{day}_undated", (STRAY,)))
        alerts.tell(place, SENT, pytest.fail)
    text = (place.settings.home / "alerts.txt").read_text(encoding="utf-8")
    assert (text.count("a moved"), text.count("of another time")) == (1, 2)


def test_a_message_that_is_not_delivered_is_said(place: Installation) -> None:
    (place.settings.home / "alerts.txt").mkdir()
    said: list[str] = []
    one = measured.Watched("b", START, QUIET, (OTHER,), model_version=1, measured_at=datetime.now(UTC))
    measured.replace(place.ledger, "sensors", one)
    alerts.tell(place, SENT, said.append)
    assert "not delivered" in said[0]


def test_a_refused_delivery_is_told(place: Installation) -> None:
    sent = SENT.model_copy(update={"file": Path("dags/datasets/sensors.yaml")})
    alerts.tell_refusal(place, sent, "b7", "no column fee", pytest.fail)
    text = (place.settings.home / "alerts.txt").read_text(encoding="utf-8")
    assert "sensors b7: 1 alarm" in text
    assert "no column fee" in text
    assert "if the data is right and the contract wrong, mend dags/datasets/sensors.yaml" in text


def test_of_a_file_that_cannot_be_read_no_contract_is_to_be_mended(place: Installation) -> None:
    """What names its content is what names its files: it was never read."""
    cut = replace(unaccepted("b8", n_read=0), status="refused", fingerprint="s", signature="s")
    place.ledger.record_validation(cut)
    alerts.tell_refusal(place, SENT, "b8", "the file is cut short", pytest.fail)
    text = (place.settings.home / "alerts.txt").read_text(encoding="utf-8")
    assert "next: have it written and delivered again" in text
    assert "mend" not in text


def test_records_of_another_time_are_told_as_that(place: Installation) -> None:
    """Four stray records are not a day of four records: one warning, whatever came before."""
    at = datetime(2026, 2, 1, tzinfo=UTC)
    version = ModelVersion("sensors", 1, "run", "key", (), {}, at, {})
    known = {name: unaccepted(name, n_read=n) for name, n in (("2026-01_undated", 4), ("2026-02_undated", 1))}
    detector = cast("Detector", None)  # a batch without an accepted record asks for none
    said = {}
    for name, state in known.items():
        found = watch(place, PLAIN, state, detector, version, None, known, backlog=0, scored_at=at)
        ((said[name], step),) = [(f.what, f.next_step) for f in found.findings]
        assert step == f"look at them: vaewatch quarantine show sensors {name}"
    assert said == {
        "2026-01_undated": "4 records are set aside: their time is not the one in the delivery's name",
        "2026-02_undated": "1 record is set aside: its time is not the one in the delivery's name",
    }


def test_a_batch_with_a_record_of_the_future_is_history_and_not_the_newest_for_ever(
    place: Installation,
) -> None:
    """What is measured of a day stays that day's, whatever one clock of a source says; nor does a row of 2099
    that was written before this was so stand before every later one.
    """
    at = datetime(2026, 2, 1, tzinfo=UTC)
    version = ModelVersion("sensors", 1, "run", "key", (), {}, at, {})
    days = ("2026-01-05", "2026-01-06")
    known = {name: replace(unaccepted(name, n_read=4), validated_at=at) for name in days}
    known["2026-01-05"] = replace(known["2026-01-05"], newest_record_at=datetime(2099, 1, 1, tzinfo=UTC))
    detector = cast("Detector", None)  # a batch without an accepted record asks for none
    first, second = (
        watch(place, PLAIN, state, detector, version, None, known, backlog=0, scored_at=at)
        for state in known.values()
    )
    assert first.day < second.day
    assert second.measures.n_earlier == 1
    assert measured.newest(place.ledger, "sensors") == [second]
    measured.replace(place.ledger, "sensors", replace(first, day=date(2099, 1, 1)))
    assert measured.newest(place.ledger, "sensors") == [second]


def unaccepted(batch_id: str, *, n_read: int) -> BatchState:
    """A batch of which the contract set everything aside."""
    return BatchState(
        dataset="sensors",
        batch_id=batch_id,
        version=1,
        status="accepted",
        reason="",
        fingerprint="",
        signature="",
        contract_hash="",
        files=[],
        notes=[],
        set_aside={"outside_period:at": n_read},
        n_read=n_read,
        n_accepted=0,
        newest_record_at=None,
        validated_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
