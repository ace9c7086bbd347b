"""The main job without Airflow, with real parts: files land, a contract is kept or not, a model is trained
and serves.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.errors import ConfigError, NotReady
from pipeline.records import verdicts
from pipeline.records.window import choose_window
from pipeline.report.glance import glance
from pipeline.results import flagging, views
from pipeline.review import record
from pipeline.sample import DUPLICATED, SampleReceipt
from pipeline.training import training_set

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]
DECIDED = {"by": "ann", "reason": "a test"}


def scores_of(place: Place, batch_id: str | None = None) -> pa.Table:
    found = place.table("scores")
    return found if batch_id is None else found.filter(pc.equal(found["batch_id"], batch_id))


def may_be_learned(record_key: str) -> bool:
    """Whether a record is not of the holdout, a tenth of all by the hash of their keys."""
    word = hashlib.md5(f"holdout {record_key}".encode()).hexdigest()[:8]  # noqa: S324
    return int(word, 16) >= 0.1 * 2**32


def numbers(table: pa.Table) -> pa.Table:
    return table.select(["batch_id", "row_number", "record_key", "anomaly_score", "p_value", "flagged"])


def test_every_record_that_landed_is_accepted_or_set_aside_and_every_accepted_one_is_scored_once(
    scored: Place, sample: SampleReceipt
) -> None:
    """A record that silently goes missing is the one somebody will ask about."""
    records, scores = scored.table("records"), scored.table("scores")
    rows = {row["batch_id"]: row for row in scored.ledger()}
    assert set(rows) == set(sample.batch_ids)
    assert sum(row["n_accepted"] + row["set_aside_rows"] for row in _with_set_aside(rows)) == records.num_rows
    for batch_id, row in rows.items():
        mine = records.filter(pc.equal(records["batch_id"], batch_id))
        accepted = mine.filter(pc.invert(mine["set_aside"]))
        if row["status"] == "refused":
            assert mine.num_rows == 0
            continue
        delivered = pq.read_table(scored.incoming / f"{batch_id}.parquet")["transaction_id"].to_pylist()
        assert mine["row_number"].to_pylist() == list(range(len(delivered)))
        assert mine["record_key"].to_pylist() == delivered
        assert (row["n_read"], row["n_accepted"]) == (mine.num_rows, accepted.num_rows)
        of_batch = scores.filter(pc.equal(scores["batch_id"], batch_id))
        assert of_batch["record_key"].to_pylist() == accepted["record_key"].to_pylist()
        assert row["n_flagged"] == pc.sum(of_batch["flagged"]).as_py()


def _with_set_aside(rows: dict[str, dict]) -> list[dict]:
    kept = [row for row in rows.values() if row["status"] != "refused"]
    return [row | {"set_aside_rows": row["n_read"] - row["n_accepted"]} for row in kept]


def test_each_hostile_day_ends_as_its_owner_would_want(scored: Place, sample: SampleReceipt) -> None:
    """One refused night must cost one night, and say why."""
    rows = {row["batch_id"]: row for row in scored.ledger()}
    of = {name: rows[batch_id] for name, batch_id in sample.hostile.items()}
    assert {name: row["status"] for name, row in of.items()} == {
        "schema_drift": "scored",
        "truncated": "refused",
        "bad_rows": "scored",
        "lost_column": "refused",
        "empty": "refused",
    }
    assert any("loyalty_tier" in note for note in of["schema_drift"]["notes"])
    here = scored.here
    page = here.page(here.dataset(scored.name), sample.hostile["schema_drift"]) / "index.html"
    assert "column &#x27;loyalty_tier&#x27; is not in the contract: left out" in page.read_text(
        encoding="utf-8"
    )
    assert "cut short" in of["truncated"]["reason"]
    assert "'fee' (decimal(10,2)) is missing" in of["lost_column"]["reason"]
    assert "0 records" in of["empty"]["reason"]
    assert all(row["status"] == "scored" for b, row in rows.items() if b not in sample.hostile.values())


def test_exactly_the_rows_that_break_the_contract_are_set_aside(scored: Place, sample: SampleReceipt) -> None:
    """One too few is a wrong record in the model; one too many is a good record lost."""
    truth = pq.read_table(sample.bad_rows)
    twice = [  # a block delivered twice: the contract keeps the first of each
        row["record_key"]
        for row in pq.read_table(sample.truth).to_pylist()
        if row["kind"] == DUPLICATED and row["batch_id"] != sample.hostile["bad_rows"]
    ]
    records = scored.table("records")
    aside = records.filter(records["set_aside"])
    assert sorted(aside["record_key"].to_pylist()) == sorted(truth["record_key"].to_pylist() + twice)
    assert {
        reason.partition(":")[0] for reasons in aside["reasons"].to_pylist() for reason in reasons
    } == set(truth["rule"].to_pylist())
    assert (
        records.filter(pc.invert(records["set_aside"]))["reasons"].null_count
        == records.num_rows - aside.num_rows
    )


def test_a_backlog_says_first_how_long_it_is(landed: Place, trained: Place) -> None:
    """Three hundred deliveries take minutes; whoever waits wants to know how far it is."""
    said: list[str] = []
    checked = landed.validate(say=said.append)
    assert said[0] == f"{len(checked.batches)} new batches to check"
    n_waiting = len([row for row in trained.ledger() if row["status"] == "accepted"])
    scored: list[str] = []
    trained.score(say=scored.append)
    assert scored[0] == f"{n_waiting} batches to score with version 1"


def test_a_backlog_has_a_line_a_batch_and_more_only_where_something_needs_attention(
    landed: Place, trained: Place, sample: SampleReceipt
) -> None:
    """Of three hundred deliveries nobody reads five lines each."""
    said: list[str] = []
    checked = landed.validate(say=said.append)
    assert len([line for line in said[1:] if not line.startswith("  ")]) == len(checked.batches)
    details = [line for line in said if line.startswith("  ")]
    assert details
    assert all(line.startswith(("  set aside: ", "  next: ")) for line in details)
    assert sum(line.endswith("run.html") for line in details) == len(checked.with_outcome("refused"))
    assert any("pattern:currency" in line for line in details)
    said.clear()
    n_waiting = len([row for row in trained.ledger() if row["status"] == "accepted"])
    trained.score(say=said.append)
    assert len([line for line in said[1:] if not line.startswith("  ")]) == n_waiting
    details = [line for line in said if line.startswith("  ")]
    assert all(
        line.startswith(("  warning: ", "  alarm: ", "  Look before", "  Do not rely", "  Far more"))
        for line in details
    )
    assert not any("wait for review" in line for line in said)


def test_a_batch_that_comes_alone_says_what_is_in_it_and_where_its_page_is(scored: Place) -> None:
    """The night of one delivery is the usual one, and its log is read."""
    said: list[str] = []
    batch_id = next(row["batch_id"] for row in scored.ledger() if row["n_flagged"])
    scored.score(batch_id, force=True, say=said.append)
    assert said[0].startswith(f"{batch_id}: ")
    assert any(line.endswith("run.html") for line in said)
    assert any("wait for review" in line for line in said)


def test_a_training_that_nobody_watches_says_how_it_goes(validated: Place) -> None:
    """A log that stays empty for minutes is that of a training that hangs."""
    code, output, errors = validated.run("train", validated.name)
    first, second, third = output.splitlines()
    assert (code, first.partition(":")[0]) == (0, f"train {validated.name}"), errors
    assert second.endswith(".html"), second
    assert Path(second.partition(": ")[2]).exists(), second
    assert third == f"  next: have it judged: vaewatch evaluate {validated.name}"
    said = [line.strip() for line in errors.splitlines()]
    assert said[0].startswith("training on about ")
    assert [line.partition(" of ")[0] for line in said if " of 60 steps" in line][-1].endswith(": 60")
    critic = "learning to tell which cell of a record is wrong"
    assert said[-1].startswith(critic)
    again = [
        "training version 1 again from what was noted of it; this takes about ",
        "trained ",
        "trained again",
        critic,
    ]
    _, _, errors = validated.run("reproduce", validated.name, "1")
    assert [line for line in again if f"  {line}" not in errors] == []


def test_scoring_says_how_much_there_is_to_look_at_and_where(trained: Place) -> None:
    """The flagged records are what all of it is for."""
    code, output, errors = trained.run("score", trained.name)
    assert code == 0, errors
    n_flagged = sum(row["n_flagged"] or 0 for row in trained.ledger())
    assert f", {n_flagged} records flagged; model version 1" in output
    assert f"next: look at what is flagged: vaewatch review list {trained.name}" in output


def test_running_everything_again_changes_nothing(scored: Place) -> None:
    """Schedulers run things twice; the second time must be free of consequences."""
    before = scored.versions(), scored.models(), scored.ledger(times=True)
    outcomes = [receipt.outcome for receipt in steps.run(scored.here, scored.name)]
    assert scored.train().outcome == "unchanged"
    assert steps.discover(scored.here, scored.name) == []
    assert (scored.versions(), scored.models(), scored.ledger(times=True)) == before
    assert set(outcomes) == {"unchanged"}
    assert scored.left_over() == []


def test_what_people_found_to_be_an_anomaly_is_not_learned_as_normal(scored: Place) -> None:
    """What a person confirmed pushes the model away; taken back, the model that knew nothing of it is the
    right one again.
    """
    here = scored.here
    worst = next(row for row in views.flagged(here, scored.name) if may_be_learned(row["record_key"]))
    label = ("review", "label", worst["anomaly_id"][:10])
    code, output, errors = scored.run(
        *label, "anomaly", "--by", "ann", "--note", "asked the holder", "--json"
    )
    assert (code, json.loads(output)["anomaly_ids"]) == (0, [worst["anomaly_id"]]), errors
    named = (worst["batch_id"], worst["record_key"])
    assert verdicts.judged(here.ledger, scored.name) == ([named], [])

    dataset, states = here.dataset(scored.name), list(here.ledger.current(scored.name).values())
    judged = [((), ()), ([named], ()), ([("elsewhere", named[1])], ()), ((), [named])]
    windows = [choose_window(dataset, states, *pair) for pair in judged]
    read = [
        training_set.read_window(
            dataset, window, here.tables(dataset), scratch=scored.root / "read", threads=1
        )
        for window in windows
    ]
    n = read[0].table.num_rows
    assert [(part.table.num_rows, part.anomalies.num_rows) for part in read] == [
        (n, 0),
        (n - 1, 1),
        (n, 0),
        (n, 0),
    ]
    assert [pc.sum(part.table[verdicts.JUDGED_NORMAL]).as_py() for part in read] == [0, 0, 0, 1]
    (place,) = read[1].anomalies[verdicts.PLACE].to_pylist()
    assert 0 <= place < n
    assert windows[0].fingerprint == windows[2].fingerprint
    assert len({window.fingerprint for window in windows}) == 3

    first = here.registry.champion(scored.name)
    assert first
    without = scored.train()
    assert (without.outcome, without.alias) == ("trained", "")
    scored.run(*label, "unsure", "--by", "bob")
    given = record.one(here.ledger, worst["anomaly_id"]).verdicts
    assert [(v.verdict, v.by, v.note) for v in given] == [
        ("anomaly", "ann", "asked the holder"),
        ("unsure", "bob", ""),
    ]
    again = scored.train()
    assert (again.outcome, again.model_version) == ("unchanged", first.version)


def test_an_anomaly_that_people_found_is_remembered_when_its_batch_is_old(scored: Place) -> None:
    """A window of thirty days must not forget what months of review have taught; and nothing else of an old
    batch comes in.
    """
    dataset, here = scored.here.dataset(scored.name), scored.here
    states = list(here.ledger.current(scored.name).values())
    tables = here.tables(dataset)
    oldest = min(state.batch_id for state in states if state.status == "scored")
    keys = tables.read("records", batch_id=oldest, flag=False)["record_key"].to_pylist()
    keys = list(filter(may_be_learned, keys))
    train = dataset.train.model_copy(update={"window_days": 1.5, "min_records": 1})
    short = dataset.model_copy(update={"train": train})
    plain, taught = (
        choose_window(short, states, odd, [(oldest, keys[1])]) for odd in ((), [(oldest, keys[0])])
    )
    assert oldest not in taught.batch_ids
    assert taught.earlier == [oldest]
    read = [
        training_set.read_window(short, window, tables, scratch=scored.root / "read", threads=1)
        for window in (plain, taught)
    ]
    assert read[0].table.equals(read[1].table)
    assert [part.anomalies.num_rows for part in read] == [0, 1]
    assert plain.fingerprint != taught.fingerprint


def test_a_file_delivered_again_with_other_content_takes_the_place_of_the_first(
    scored: Place, sample: SampleReceipt
) -> None:
    """A late correction is the rule, not the exception; what was known before it must stay readable."""
    last = sample.batch_ids[-1]
    file = scored.incoming / f"{last}.parquet"
    earlier, version = scores_of(scored, last), scored.versions()["scores"]
    table = pq.read_table(file)
    pq.write_table(table.slice(0, table.num_rows - 7), file)
    assert steps.discover(scored.here, scored.name) == [last]
    assert [b.outcome for b in scored.validate(last).batches] == ["accepted"]
    assert steps.discover(scored.here, scored.name) == [last]
    assert [b.outcome for b in scored.score(last).batches] == ["scored"]

    later = scores_of(scored, last)
    assert later.num_rows == earlier.num_rows - 7
    assert (
        numbers(later)
        .select(["record_key", "anomaly_score"])
        .equals(numbers(earlier).select(["record_key", "anomaly_score"]).slice(0, later.num_rows))
    )
    history = scored.here.ledger.history(scored.name, last)
    assert [(state.version, state.status, state.n_read) for state in history] == [
        (1, "scored", 400),
        (2, "scored", 393),
    ]
    from deltalake import DeltaTable

    here = scored.here
    then = DeltaTable(
        here.tables(here.dataset(scored.name)).uri("scores"), version=version
    ).to_pyarrow_table()
    assert pc.sum(pc.equal(then["batch_id"], last)).as_py() == 400


def test_a_delivery_that_is_cut_otherwise_is_checked_again(validated: Place) -> None:
    """The whole delivery of a day and its records of that day have one name, and need not be the same."""
    assert validated.validate("2026-01-05").outcome == "unchanged"
    validated.edit("settle_seconds: 0", "settle_seconds: 0\n  split: day")
    assert "2026-01-05" in steps.discover(validated.here, validated.name)
    (again,) = validated.validate("2026-01-05").batches
    assert again.outcome == "accepted"
    assert "2026-01-05" not in steps.discover(validated.here, validated.name)


def test_the_same_content_touched_is_done_already(scored: Place, sample: SampleReceipt) -> None:
    """A folder that was copied or synchronised again must not cause a night of work."""
    before = scored.versions(), scored.ledger()
    for batch_id in sample.batch_ids[:2]:
        os.utime(scored.incoming / f"{batch_id}.parquet")
    assert steps.discover(scored.here, scored.name) == list(sample.batch_ids[:2])
    assert {b.outcome for b in scored.validate().batches} == {"unchanged"}
    assert steps.discover(scored.here, scored.name) == []
    assert (scored.versions(), scored.ledger()) == before


def test_batches_wait_for_the_first_champion_and_are_scored_once_there_is_one(
    validated: Place, sample: SampleReceipt
) -> None:
    """The first nights have no model; nobody should have to remember to score them later."""
    assert {b.outcome for b in validated.score().batches} == {"waiting", "unchanged"}
    assert steps.discover(validated.here, validated.name) == []
    assert "scores" not in validated.versions()
    assert validated.train().alias == "champion"
    first = sample.batch_ids[0]
    assert first in steps.discover(validated.here, validated.name)
    assert [b.outcome for b in validated.score(first).batches] == ["scored"]


def test_a_second_training_is_challenger_and_promotion_and_rollback_move_what_serves(scored: Place) -> None:
    """Going back must give exactly yesterday's scores, or nobody dares to go forward."""
    day = scored.ledger()[0]["batch_id"]
    before = scores_of(scored, day)
    scored.edit("steps: 60", "steps: 70")
    trained = scored.train()
    assert (trained.outcome, trained.alias, list(scored.models())) == ("trained", "", [1, 2])
    assert scored.score(day, force=True).model_version == 1

    promoted = steps.promote(scored.here, scored.name, 2, override=True, **DECIDED)
    assert (promoted.model_version, promoted.previous) == (2, 1)
    days = sorted(row["batch_id"] for row in scored.ledger() if row["status"] == "scored")
    renew = f"to score them again with version 2: vaewatch score {scored.name} {days[0]}..{days[-1]} --force"
    assert promoted.next == f"{len(days)} batches keep the flags of version 1; {renew}"
    assert scored.score(day, force=True).model_version == 2
    other = scores_of(scored, day)
    assert set(other["model_version"].to_pylist()) == {2}
    assert other["anomaly_score"].to_pylist() != before["anomaly_score"].to_pylist()
    assert other.filter(other["flagged"]).num_rows != 0

    back = steps.rollback(scored.here, scored.name, **DECIDED)
    assert back.model_version == 1
    again = f"vaewatch score {scored.name} {day} --force"
    assert back.next == f"one batch keeps the flags of version 2; to score it again with version 1: {again}"
    said = glance(scored.here, scored.here.dataset(scored.name), 30)
    assert said.headlines[day] == "The version that flagged these was taken back"
    assert re.fullmatch(
        rf"Version 2 was rolled back by {DECIDED['by']}, .*; {re.escape(back.next)}", said.lines[-1]
    )
    assert said.headlines[day] in scored.run("status", scored.name)[1]
    scored.score(day, force=True)
    said = glance(scored.here, scored.here.dataset(scored.name), 30)
    assert "taken back" not in str(said)
    assert "rolled back" not in str(said)
    assert scores_of(scored, day).equals(before)
    with pytest.raises(NotReady, match="no earlier one to go back to"):
        steps.rollback(scored.here, scored.name, **DECIDED)


def test_another_budget_without_a_training_is_told_in_the_history_and_on_the_page(scored: Place) -> None:
    """The version is the same and the flags are others: whoever compares two nights must find out why."""
    assert all(e["what"] != "threshold" for e in steps.history(scored.here, scored.name))
    rows = [row for row in scored.ledger() if row["status"] == "scored"]
    day, before = rows[-1]["batch_id"], rows[-1]["threshold"]
    others = scored.table("scores").filter(pc.field("batch_id") != day)
    scored.edit("review_budget: 20", "review_budget: 2")
    scored.score(day, force=True)
    newest = steps.history(scored.here, scored.name)[-1]
    now = next(row["threshold"] for row in scored.ledger() if row["batch_id"] == day)
    assert now > before
    assert (newest["what"], newest["version"]) == ("threshold", 1)
    told = f"review_budget 2 instead of review_budget 20: above {now:.4g} nats, {before:.4g} before"
    assert (newest["by"], newest["reason"]) == ("the dataset's file", told)
    here = scored.here
    page = here.page(here.dataset(scored.name), day) / "run.html"
    assert told in page.read_text(encoding="utf-8")
    assert told in here.registry.version(scored.name, 1).tags["flag_rule"]
    after = scored.table("scores")
    assert after.filter(pc.field("batch_id") != day).equals(others)  # what was scored before keeps its own
    assert set(others["threshold"].to_pylist()) == {before}
    assert set(after.filter(pc.field("batch_id") == day)["threshold"].to_pylist()) == {now}
    scored.score(day, force=True)
    given = flagging.give_reason(here, here.dataset(scored.name), by="ann", reason="half of it was noise")
    assert given
    assert (given.threshold, given.by) == (now, "ann")
    assert (
        flagging.give_reason(here, here.dataset(scored.name), by="ann", reason="half of it was noise") is None
    )
    written = flagging.rules(here.ledger, scored.name)
    assert [(one.rule, one.by) for one in written] == [
        ("review_budget 2", "ann"),
        ("review_budget 2", "the dataset's file"),
        ("review_budget 20", "the dataset's file"),
    ]
    assert "half of it was noise" in scored.here.registry.version(scored.name, 1).tags["flag_rule"]


def test_scores_do_not_depend_on_slices_threads_or_order(
    scored: Place, sample: SampleReceipt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A score that moves with the machine's load cannot be explained to anybody."""
    import torch

    from pipeline.detection.detector import Detector
    from pipeline.records import accepted

    day = sample.batch_ids[0]
    before = scores_of(scored, day)
    monkeypatch.setattr(accepted, "SLICE", 37)
    scored.score(day, force=True)
    assert scores_of(scored, day).equals(before)

    here = scored.here
    detector = Detector.load(
        here.registry.fetch(here.registry.champion(scored.name), here.settings.home / "models")
    )
    records = pa.Table.from_struct_array(before_record(scored, day))
    order = np.random.default_rng(1).permutation(records.num_rows)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2 if threads == 1 else 1)
        shuffled = detector.score_table(records.take(order)).take(np.argsort(order))
    finally:
        torch.set_num_threads(threads)
    assert shuffled["anomaly_score"].to_pylist() == before["anomaly_score"].to_pylist()


def before_record(place: Place, batch_id: str) -> pa.StructArray:
    """The accepted records of a batch, in the order of its file."""
    found = place.table("records")
    mine = found.filter(pc.and_(pc.equal(found["batch_id"], batch_id), pc.invert(found["set_aside"])))
    return mine["record"].combine_chunks()


def test_the_registered_model_loaded_elsewhere_gives_the_same_bits(
    scored: Place, sample: SampleReceipt, tmp_path: Path
) -> None:
    """Whoever loads the model with plain MLflow must see what production sees."""
    day = sample.hostile["bad_rows"]
    pq.write_table(pa.Table.from_struct_array(before_record(scored, day)), tmp_path / "records.parquet")
    code = f"""
        import mlflow, pyarrow as pa, pyarrow.parquet as pq
        mlflow.set_tracking_uri({scored.settings.tracking!r})
        model = mlflow.pyfunc.load_model("models:/vaewatch.payments@champion")
        scores = model.predict(pq.read_table({str(tmp_path / "records.parquet")!r}).to_pandas())
        pq.write_table(pa.Table.from_pandas(scores), {str(tmp_path / "scores.parquet")!r})
        """
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], check=True, env=scored.environment, timeout=300
    )
    elsewhere, ours = pq.read_table(tmp_path / "scores.parquet"), scores_of(scored, day)
    for name in ("anomaly_score", "reconstruction", "kl_divergence", "p_value", "severity"):
        assert elsewhere[name].to_pylist() == ours[name].to_pylist(), name


def test_records_are_released_once_the_contract_is_mended(scored: Place, sample: SampleReceipt) -> None:
    """A rule that was too strict must not cost the records it kept out."""
    day = sample.hostile["bad_rows"]
    before = {row["batch_id"]: row for row in scored.ledger()}
    n_manual = before[day]["set_aside"]["not_in_set:channel"]
    scored.edit("online, atm]", "online, atm, manual]")
    said: list[str] = []
    checked, done = steps.release(scored.here, scored.name, day, say=said.append)
    assert (checked.outcome, done.outcome) == ("done", "done")
    assert [line.split()[2] for line in said if line.startswith(f"{day}: ")] == ["accepted,", "scored,"]
    after = {row["batch_id"]: row for row in scored.ledger()}
    assert "not_in_set:channel" not in after[day]["set_aside"]
    assert after[day]["n_accepted"] == before[day]["n_accepted"] + n_manual
    assert scores_of(scored, day).num_rows == after[day]["n_accepted"]
    others = set(before) - {day}
    assert {b: after[b] for b in others} == {b: before[b] for b in others}


def test_the_command_line_says_how_it_ended_by_its_exit_code(scored: Place, sample: SampleReceipt) -> None:
    """Cron and shell scripts read nothing else."""
    truncated, bad_rows = sample.hostile["truncated"], sample.hostile["bad_rows"]
    assert truncated < bad_rows
    expected = {
        ("validate", "payments"): 0,
        ("score", "payments", "2027-01-01"): 2,
        ("validate", "payments", truncated, "--force"): 3,
        ("validate", "payments", f"{truncated}..{bad_rows}", "--force"): 4,
    }
    for arguments, code in expected.items():
        got, output, errors = scored.run(*arguments, "--json")
        assert got == code, f"{arguments}: {output}{errors}"
        if code == 2:
            assert errors.startswith("error: payments: batch '2027-01-01' was never validated; did you mean")
            assert output == ""
        else:
            (receipt,) = json.loads(output)
            assert (receipt["step"], receipt["dataset"]) == ("validate", "payments")
    with pytest.raises(ConfigError, match=r"no dataset 'payment' .*did you mean 'payments'\?"):
        scored.here.dataset("payment")


@pytest.mark.parametrize(
    "arguments",
    [
        ("status",),
        ("review", "list", "payments"),
        ("review", "stats"),
        ("quarantine", "list", "payments"),
        ("quarantine", "show", "payments", "2026-01-11"),
    ],
    ids=" ".join,
)
def test_what_is_shown_can_be_read_by_a_program(
    scored: Place,
    arguments: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Decimals, dates and bytes must not end in a traceback, and nothing else may be on standard output."""
    from pipeline.cli import app

    monkeypatch.setenv("VAEWATCH_HOME", str(scored.settings.home))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(scored.settings.datasets))
    app([*arguments, "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)
