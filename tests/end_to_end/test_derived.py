"""Derived columns: computed across batches, so that no boundary leaves a mark in a score."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import sql, steps
from pipeline.config import derived
from pipeline.display.nightly import print_receipt
from pipeline.doctor import examine
from pipeline.errors import ConfigError, NotReady
from pipeline.records.window import choose_window
from pipeline.report import batch
from pipeline.results import views
from pipeline.review import compare, record, versions
from pipeline.review.queued import Whole
from pipeline.training import training_set
from pipeline.web.words import number, rounded
from tests.pipeline.review_page import as_role

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]
START = datetime(2026, 3, 1)  # noqa: DTZ001  # the plant's own clock
A_DAY = 144  # a reading every ten minutes
SETTINGS = """\
dataset: plant
incoming: {path: ../incoming/plant, settle_seconds: 0}
key: id
time: at
entity: pump
columns:
  id: {type: string}
  at: {type: timestamp, required: true, role: context}
  pump: {type: string}
  level: {type: float}
derived:
  level_change: level - lag(level) OVER by_time
  level_from_hour: level - median(level) OVER the_hour
  level_from_day: {sql: level - median(level) OVER the_day, role: numeric}
train: {min_records: 50, recipe: {steps: 60, n_members: 2}}
flag: {review_budget: 20}
"""


def readings(day: int) -> pa.Table:
    """A day of two pumps whose levels wander slowly."""
    moments = np.arange(day * A_DAY, (day + 1) * A_DAY)
    parts = []
    for i, pump in enumerate("ab"):
        level = 100 * i + 5 * np.sin(moments / 40 + i) + np.random.default_rng([day, i]).normal(0, 0.1, A_DAY)
        parts.append(
            pa.table({
                "id": [f"{pump}{m}" for m in moments],
                "at": pa.array([START + timedelta(minutes=10 * int(m)) for m in moments], pa.timestamp("us")),
                "pump": [pump] * A_DAY,
                "level": level,
            })
        )
    return pa.concat_tables(parts).sort_by([("at", "ascending"), ("pump", "ascending")])


@pytest.fixture(scope="module")
def plant(landed_once: tuple[Place, Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Four days learned."""
    place = type(landed_once[0])(tmp_path_factory.mktemp("plant"), "plant")
    place.incoming.mkdir(parents=True)
    place.yaml.parent.mkdir(parents=True)
    place.yaml.write_text(SETTINGS, encoding="utf-8")
    for day in range(4):
        pq.write_table(readings(day), place.incoming / f"day{day}.parquet")
    place.validate()
    assert place.train().alias == "champion"
    yield place
    place.close()


def by_record(place: Place) -> dict[str, float]:
    scores = place.table("scores")
    return dict(zip(scores["record_key"].to_pylist(), scores["anomaly_score"].to_pylist(), strict=True))


def test_where_a_batch_ends_leaves_no_mark(
    plant: Place, open_copy: Callable[[Place], Place], tmp_path: Path
) -> None:
    """The fifth day as one delivery and as two: the same score to the bit for every record, the first of each
    included.
    """
    whole, halves = open_copy(plant), plant.copy(tmp_path / "halves")
    day = readings(4)
    middle = day.num_rows // 2
    pq.write_table(day, whole.incoming / "day4.parquet")
    pq.write_table(day.slice(0, middle), halves.incoming / "day4-0.parquet")
    pq.write_table(day.slice(middle), halves.incoming / "day4-1.parquet")
    for place in (whole, halves):
        place.validate()
        place.score()
    one, two = by_record(whole), by_record(halves)
    assert len(one) == 5 * 2 * A_DAY
    assert one == two
    halves.close()


def test_a_derived_column_is_what_its_expression_says(plant: Place) -> None:
    """Against pandas, within each pump; nothing looks ahead and nothing looks at the other pump."""
    here = plant.here
    dataset, states = here.dataset("plant"), list(here.ledger.current("plant").values())
    window = choose_window(dataset, states)
    files = here.tables(dataset).files("records", window.batch_ids, flag=False)
    with sql.database(plant.root / "derived", threads=1) as connection:
        ours = connection.sql(f'SELECT * FROM ({derived.accepted(dataset, files)}) ORDER BY pump, "at"').df()
    for _, pump in ours.groupby("pump"):
        level = pump.set_index("at")["level"]
        pd.testing.assert_series_equal(pump["level_change"], pump["level"].diff(), check_names=False)
        for name, span in (("level_from_hour", "1h"), ("level_from_day", "1D")):
            expected = level - level.rolling(span, closed="both").median()
            np.testing.assert_allclose(pump[name], expected, atol=1e-12)


def jumped(place: Place) -> pa.Table:
    """A fifth day with one reading in another place, scored."""
    day = readings(4)
    level = day["level"].to_numpy().copy()
    level[201] += 8 if level[201] < 100 else -8
    pq.write_table(day.set_column(3, "level", pa.array(level)), place.incoming / "day4.parquet")
    place.validate()
    place.score()
    return day


def test_a_jump_inside_the_usual_range_is_flagged_and_explained(
    plant: Place, open_copy: Callable[[Place], Place]
) -> None:
    """Every level occurs every day: only against the readings before it is this one odd."""
    place = open_copy(plant)
    day = jumped(place)
    worst = views.flagged(place.here, "plant", limit=1)[0]
    assert worst["record_key"] in {day["id"][row].as_py() for row in (201, 203)}  # there, or on the way back
    assert worst["reasons"][0]["column"].startswith("level_")
    whole = record.one(place.here.ledger, worst["anomaly_id"])
    assert set(whole.record) == {"id", "at", "pump", "level"}
    dataset = place.here.dataset("plant")
    (said,) = versions.scored_by(place.here, dataset, whole)  # its derived columns are computed again
    assert (said.anomaly_score, said.severity) == (whole.anomaly_score, whole.severity)
    _says_what_it_is_made_of(place, whole)
    code, shown, errors = place.run("review", "show", whole.anomaly_id)
    assert code == 0, errors
    made = versions.derived_values(place.here, dataset, whole)
    assert made.keys() == dataset.derived.keys()
    for reason in whole.reasons:
        assert float(reason.observed) == pytest.approx(made[reason.column], rel=1e-3)
        assert f"{reason.column} = {dataset.derived[reason.column].sql}" in shown
    assert "(derived)" not in shown
    change = compare.clearing(
        place.here, dataset, whole
    )  # a column that looks back, as if it stood by itself
    assert {one.column for one in change.changes} <= made.keys()
    assert change.changes[0].column == whole.reasons[0].column
    assert change.score < whole.threshold
    browser = as_role(place.here, may_write=False)
    assert browser.get(f"/api/records/{whole.anomaly_id}/derived").json() == [
        {"column": name, "value": value} for name, value in made.items()
    ]
    place.edit("OVER the_hour", "OVER by_time")
    (other,) = versions.scored_by(place.here, place.here.dataset("plant"), whole)
    assert other.anomaly_score is None
    assert "defined differently" in other.why_not
    assert "differently now" in compare.clearing(place.here, place.here.dataset("plant"), whole).why_not


def _says_what_it_is_made_of(place: Place, row: Whole) -> None:
    """On its page each reason has a plot, a value and its expression, and the column behind it is marked."""
    dataset = place.here.dataset("plant")
    page = as_role(place.here, may_write=False).get(f"/record/{row.anomaly_id}").text
    names = [reason.column for reason in row.reasons]
    assert [name for name in names if re.search(rf'class="plot"[^>]*aria-label="{name}: ', page)] == names
    assert page.count('class="bar') > 30 * len(names)
    for reason in row.reasons:
        expression = html.escape(dataset.derived[reason.column].sql)
        made = f"<dt>{reason.column} <code>{expression}</code></dt><dd>{rounded(reason.observed)}</dd>"
        assert made in page
    behind = re.findall(r'<div class="behind"><dt>(\w+) <small>in (.*?)</small>', page)
    assert behind == [("level", ", ".join(names))]
    around = record.neighbours(place.here, dataset, row)
    first = row.reasons[0].column
    assert around.columns[:3] == ("at", first, "level")
    (this,) = (one for one in around.rows if one.is_this)
    computed = versions.derived_values(place.here, dataset, row)
    assert this.derived == {name: computed[name] for name in names}
    shown = " ".join(place.run("review", "show", row.anomaly_id, "--neighbours")[1].split())
    assert f"record at {first} level" in shown
    part = as_role(place.here, may_write=False).get(f"/record/{row.anomaly_id}/neighbours").text
    assert f"<th>at</th><th>{first}</th><th>level</th>" in part
    assert f"<td>{number(this.derived[first])}</td>" in part


def test_what_neighbours_derived_columns_are_is_computed_across_batches(
    plant: Place, open_copy: Callable[[Place], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change that made a record odd is seen beside those before it; of batches that would take long the
    values are left out.
    """
    jumped(place := open_copy(plant))
    here, dataset = place.here, place.here.dataset("plant")
    rows = (record.one(here.ledger, one["anomaly_id"]) for one in views.flagged(here, "plant", limit=3))
    row = next(one for one in rows if any(reason.column == "level_change" for reason in one.reasons))
    around = record.neighbours(here, dataset, row, each_side=A_DAY)
    assert len({one.batch_id for one in around.rows}) > 1
    for before, one in pairwise(around.rows):
        change = one.record["level"] - before.record["level"]
        assert one.derived["level_change"] == pytest.approx(change, abs=1e-9)
    monkeypatch.setattr(record, "MOST_COMPUTED", 0)
    few = record.neighbours(here, dataset, row, each_side=A_DAY)
    assert {one.batch_id for one in few.rows if one.derived} == {row.batch_id}
    assert [one.record for one in few.rows] == [one.record for one in around.rows]


def test_a_day_that_looked_back_on_what_came_late_is_said_to_be_outdated(
    plant: Place, open_copy: Callable[[Place], Place]
) -> None:
    """By every run, the status and its page, until it is scored again; then its scores are those of a day
    that came in its turn.
    """
    place, in_turn = open_copy(plant), open_copy(plant)
    for day in (4, 5):
        pq.write_table(readings(day), in_turn.incoming / f"day{day}.parquet")
    in_turn.validate()
    in_turn.score()
    pq.write_table(readings(5), place.incoming / "day5.parquet")
    place.validate()
    assert not place.score().notes
    assert by_record(place).items() - by_record(in_turn).items()
    pq.write_table(readings(4), place.incoming / "day4.parquet")
    place.validate()
    words = "looks back on day4: delivered, changed or refused after it was scored"
    said = f"day5 {words}; score it again: vaewatch score plant day5 --force"
    assert place.score().notes == (said,)
    assert place.score().notes == (said,)
    dataset = place.here.dataset("plant")
    assert words in batch.path_of(place.here, dataset, "day5").read_text("utf-8")
    assert batch.rewrite(place.here, dataset, "day5").trust.word == "outdated"
    (status,) = views.status(place.here, "plant")
    assert {one["batch_id"]: one["outdated_by"] for one in status["batches"] if one["outdated_by"]} == {
        "day5": ["day4"]
    }
    place.validate("day4", force=True)  # the same records
    place.score("day4")
    assert not place.score("day5", force=True).notes
    assert by_record(place) == by_record(in_turn)
    assert batch.rewrite(place.here, dataset, "day5").trust.word != "outdated"


def test_a_page_does_not_praise_a_day_that_is_mostly_missing(
    plant: Place, open_copy: Callable[[Place], Place]
) -> None:
    """It broke no rule, as the column may be missing; and there is little to score."""
    place = open_copy(plant)
    day = readings(4)
    silent = pa.array(np.arange(day.num_rows) >= 0.3 * day.num_rows)
    level = pc.if_else(silent, pa.scalar(None, pa.float64()), day["level"])
    pq.write_table(day.set_column(3, "level", level), place.incoming / "day4.parquet")
    place.validate()
    place.score()
    dataset = place.here.dataset("plant")
    said = r"every record kept every rule; (\d+)% of the values that the model reads are missing"
    found = re.search(said, batch.path_of(place.here, dataset, "day4").read_text("utf-8"))
    assert found
    assert 40 <= int(found[1]) <= 80
    assert "values that the model reads are missing" not in batch.rewrite(
        place.here, dataset, "day3"
    ).path.read_text("utf-8")


def test_a_batch_that_is_checked_again_and_stays_as_it_was_makes_nothing_outdated(
    plant: Place, open_copy: Callable[[Place], Place]
) -> None:
    """Only what a batch sees of another counts; one that is mended does, one that is refused does."""
    place = open_copy(plant)
    place.score()
    place.validate("day2", force=True)
    assert not place.score().notes
    day = readings(2)
    pq.write_table(day.slice(0, day.num_rows - 1), place.incoming / "day2.parquet")
    place.validate()
    (note,) = place.score().notes
    assert note.startswith("day3 looks back on day2: ")
    (place.incoming / "day1.parquet").write_bytes(b"PAR1")
    place.validate()
    (note,) = place.score().notes
    assert note.startswith("day2..day3 looks back on day2: ")


def test_a_model_that_knows_other_derived_columns_is_not_asked(
    plant: Place, open_copy: Callable[[Place], Place]
) -> None:
    """An hour that became two would be scored by a model of one, without a word."""
    place = open_copy(plant)
    pq.write_table(readings(4), place.incoming / "day4.parquet")
    place.validate()
    place.edit("OVER the_hour", "OVER by_time")
    (receipt,) = (b for b in place.score().batches if b.batch_id == "day4")
    assert receipt.outcome == "failed"
    said = "derived columns changed since the model was trained (level_from_hour); train again (vaewatch train plant)"
    assert said in receipt.reason


def test_a_version_that_knows_other_derived_columns_comes_to_serve_only_by_somebodys_word(
    plant: Place, open_copy: Callable[[Place], Place], capsys: pytest.CaptureFixture[str]
) -> None:
    """Brought back without a word, it would fail every night from then on."""
    place = open_copy(plant)
    place.edit("OVER the_hour", "OVER the_day")
    changed = (
        "cannot score what lands from now on: derived columns changed since it was trained (level_from_hour)"
    )

    def looked_at() -> str:
        environment = {name: place.environment[name] for name in ("VAEWATCH_HOME", "VAEWATCH_DATASETS")}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            (said,) = (one for one in examine() if one["what"] == "dataset plant")
        return f"{'' if said['ok'] else 'mend: '}{said['found']}"

    assert looked_at().startswith(
        f"mend: version 1 {changed}; train again (vaewatch train plant), or change "
    )
    by_name = {"by": "ann", "reason": "a test", "override": True}
    second = steps.train(place.here, "plant").model_version
    judged = steps.evaluate(place.here, "plant", second)
    other = "version 1 learned other derived columns than the dataset's file has now (level_from_hour)"
    assert f"not compared with the champion: {other}" in judged.notes
    print_receipt(judged)
    assert " ".join(capsys.readouterr().out.split()).count(other) == 1
    steps.promote(place.here, "plant", second, **by_name)
    assert not looked_at().startswith("mend: ")
    with pytest.raises(
        NotReady, match=r"nothing was changed; .*vaewatch promote plant --version 1"
    ) as refused:
        steps.rollback(place.here, "plant", by="ann", reason="")
    assert changed in str(refused.value)
    assert place.here.ledger.serving_version("plant") == second
    assert changed in steps.evidence(place.here, "plant", 1).objection
    with pytest.raises(NotReady, match="cannot score what lands from now on"):
        steps.promote(place.here, "plant", 1, by="ann", reason="")
    assert "overrides: version 1 cannot score" in steps.promote(place.here, "plant", 1, **by_name).reason


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("lag(level)", "lag(levle)", r"derived.level_change: Binder Error: .*levle"),
        ("lag(level)", "lag(level", r"derived.level_change: Parser Error"),
        ("OVER the_hour", "OVER the_year", r"derived.level_from_hour: .*the_year"),
        ("level_change:", "pump:", r"derived column 'pump' is among the columns already"),
        ("time: at\n", "", r"derived: needs a time column"),
        ("entity: pump", "entity: valve", r"entity column 'valve' is not among the columns"),
    ],
)
def test_a_faulty_expression_is_said_when_the_file_is_read(
    plant: Place, open_copy: Callable[[Place], Place], old: str, new: str, said: str
) -> None:
    """Not at two in the morning."""
    place = open_copy(plant)
    place.edit(old, new)
    with pytest.raises(ConfigError, match=said):
        place.here.dataset("plant")


def test_missing_readings_are_missing_in_what_is_derived(plant: Place) -> None:
    """The very first change is unknown, and is treated as any missing cell."""
    here = plant.here
    dataset, states = here.dataset("plant"), list(here.ledger.current("plant").values())
    window = choose_window(dataset, states)
    table = training_set.read_window(
        dataset, window, here.tables(dataset), scratch=plant.root / "read", threads=1
    ).table
    assert table.column_names[:-2] == ["at", "level_change", "level_from_hour", "level_from_day"]
    assert pc.sum(pc.is_null(table["level_change"])).as_py() == 2
    assert table["level_from_day"].null_count == 0
