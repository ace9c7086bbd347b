"""Monitoring as a part of the main job: every scored batch has its numbers, once, whatever happened on the
way.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import TYPE_CHECKING

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from pipeline import steps
from pipeline.cli import app
from pipeline.config.gates import Gates
from pipeline.display.models import print_version
from pipeline.errors import NotReady, StorageFailed
from pipeline.evaluation.told import measured_by
from pipeline.monitoring import store
from pipeline.registry import NEWEST_BATCH, ModelVersion, Registry
from pipeline.report import batch, gates, newest
from pipeline.report.listing import listing
from pipeline.report.trace import as_lines, trace
from pipeline.review import judging, queue
from pipeline.sample import SampleReceipt
from pipeline.storage.review_schema import queue_batches
from tests.pipeline.review_page import as_role

from .test_promotion import LENIENT, with_gates

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]


def test_every_scored_batch_is_measured_and_a_refused_one_is_not(
    scored: Place, sample: SampleReceipt
) -> None:
    """The numbers are those of the ledger and of the tables."""
    rows = {row["batch_id"]: row for row in scored.ledger() if row["status"] == "scored"}
    found = {one.batch_id: one for one in store.newest(scored.here.ledger, "payments", 99)}
    assert set(found) == set(rows)
    for batch_id, one in found.items():
        row, now = rows[batch_id], one.measures
        assert (now.n_records, now.n_flagged) == (row["n_accepted"], row["n_flagged"])
        assert now.n_set_aside == row["n_read"] - row["n_accepted"]
        assert now.n_sampled == now.n_records
        assert now.above == row["above_usual"]
        assert row["is_odd"] == any(finding.key == "scores" for finding in one.findings)
        assert one.day.isoformat() == batch_id
        assert {"amount", "fee", "merchant_category"} <= set(now.columns)
        assert sum(now.columns["fee"].counts) == now.n_records


def test_what_was_flagged_within_a_day_is_no_backlog(scored: Place) -> None:
    """Of a first run nobody can have looked at anything; a week later its records have waited."""
    here = scored.here
    found = {one.batch_id: one.measures.backlog for one in store.newest(here.ledger, "payments", 99)}
    assert set(found.values()) == {0}
    earlier = datetime.now(UTC) - timedelta(days=2)
    with here.ledger.transaction(write=True) as connection:
        connection.execute(sa.update(queue_batches).values(scored_at=earlier))
    n_open = queue.total(here.ledger, queue.Filters(dataset="payments", kind="flagged", state="open"))
    scored.score("2026-01-05", force=True)
    again = store.one(here.ledger, "payments", "2026-01-05")
    assert again
    assert again.measures.backlog == n_open - again.measures.n_flagged
    assert n_open > again.measures.n_flagged


def test_scoring_again_measures_the_same(scored: Place) -> None:
    """But for the clock: the champion is older and the backlog may have changed."""
    before = {one.batch_id: one for one in store.newest(scored.here.ledger, "payments", 99)}
    scored.score("2026-01-05", force=True)
    after = {one.batch_id: one for one in store.newest(scored.here.ledger, "payments", 99)}
    assert set(before) == set(after)
    assert after["2026-01-05"].measures.columns == before["2026-01-05"].measures.columns
    changed = [batch_id for batch_id in after if after[batch_id] != before[batch_id]]
    assert changed == ["2026-01-05"]
    newest = [one.batch_id for one in before.values() if one.measures.is_newest]
    assert newest == [max(before)]  # as all of them were there when the first was scored


def test_a_step_that_dies_before_the_ledger_measures_again(
    trained: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Table first, measures next, ledger last."""

    def dies(*_: object, **__: object) -> None:
        raise StorageFailed("killed here")

    here = trained.here
    with monkeypatch.context() as patched:
        patched.setattr(type(here.ledger), "record_scores", dies)
        with pytest.raises(StorageFailed, match="killed here"):
            steps.score(here, "payments", "2026-01-01")
    assert store.one(here.ledger, "payments", "2026-01-01")
    trained.score("2026-01-01")
    assert [one.batch_id for one in store.newest(here.ledger, "payments", 99)] == ["2026-01-01"]


def test_every_batch_has_a_page_that_answers_first_and_says_the_same_when_written_again(
    scored: Place, sample: SampleReceipt
) -> None:
    """A refused batch, too: it is the one somebody looks for at night."""
    here = scored.here
    dataset = here.dataset("payments")
    listed = {one.batch_id: one for one in listing(here, None, limit=500).batches}
    for row in scored.ledger():
        page = batch.path_of(here, dataset, row["batch_id"])
        first = page.read_bytes()
        written = batch.rewrite(here, dataset, row["batch_id"])
        assert written.path == page
        here_now = b"mend " + bytes(scored.yaml)  # the installation was copied since
        assert page.read_bytes() == re.sub(rb"mend [^<]*payments\.yaml", here_now, first)
        text = first.decode()
        assert written.trust.headline in text
        told = listed[row["batch_id"]]
        assert (told.headline, told.tone) == (written.trust.headline, written.trust.tone)
        assert "<script" not in text
        assert "http" not in text.replace("http-equiv", "")
        watched = store.one(here.ledger, "payments", row["batch_id"])
        is_learned = watched is not None and watched.measures.learned
        assert ("This batch was among those that version 1 learned from." in text) == is_learned
        assert not (is_learned and "train again" in text)
        assert (written.trust.word == "refused") == (row["status"] == "refused")
    refused = batch.rewrite(here, dataset, sample.hostile["lost_column"])
    assert "'fee'" in refused.trust.why
    assert refused.trust.next_step.endswith(f"mend {scored.yaml}")
    cut = batch.path_of(here, dataset, sample.hostile["truncated"])
    assert "no record was read" in cut.read_text()
    for page in (cut, cut.with_name("index.html")):
        assert "delivered again; it is checked anew by itself" in page.read_text().replace("\n", " ")
        assert "mend" not in page.read_text()
    assert batch.rewrite(here, dataset).batch_id == sample.batch_ids[-1]
    with pytest.raises(NotReady, match="batch '1999-01-01' was never validated"):
        batch.rewrite(here, dataset, "1999-01-01")


def test_batches_that_finish_out_of_turn_are_held_against_those_before_them(
    trained: Place, open_copy: Callable[[Place], Place]
) -> None:
    """Of a backlog batches are scored side by side: whichever is done first, the numbers, the page and what
    is found are those of an orderly night.
    """
    in_turn = open_copy(trained)
    in_turn.score("2026-01-01..2026-01-05")
    trained.score("2026-01-05")
    here = trained.here
    dataset = here.dataset("payments")
    assert "No earlier batch is known" in batch.path_of(here, dataset, "2026-01-05").read_text("utf-8")
    trained.score("2026-01-01..2026-01-04")
    page = batch.path_of(here, dataset, "2026-01-05").read_text("utf-8")
    assert "Only 4 earlier batches are known" in page
    assert "the last 5 batches" in page
    for batch_id in ("2026-01-01", "2026-01-05"):
        one, other = (store.one(place.here.ledger, "payments", batch_id) for place in (trained, in_turn))
        assert one
        assert other
        assert one.measures.n_earlier == other.measures.n_earlier
        assert [finding.key for finding in one.findings] == [finding.key for finding in other.findings]


def test_a_report_written_again_counts_the_batches_that_came_before_by_now(trained: Place) -> None:
    """Also where nobody judged again when they came, as in an installation of before this was done."""
    trained.score("2026-01-01..2026-01-03")
    here = trained.here
    found = store.one(here.ledger, "payments", "2026-01-03")
    assert found
    store.replace(here.ledger, "payments", replace(found, measures=replace(found.measures, n_earlier=0)))
    assert "Only 2 earlier batches" in batch.rewrite(here, here.dataset("payments"), "2026-01-03").trust.why
    again = store.one(here.ledger, "payments", "2026-01-03")
    assert again
    assert again.measures.n_earlier == 2
    assert not store.judge_again(here.ledger, "payments", replace(again, measured_at=None))


def test_a_page_that_cannot_be_written_leaves_the_earlier_one(scored: Place) -> None:
    """And says so: nothing is half written."""
    here = scored.here
    dataset = here.dataset("payments")
    page = batch.path_of(here, dataset, "2026-01-05")
    page.unlink()
    page.mkdir()
    with pytest.raises(StorageFailed, match="could not be written"):
        batch.rewrite(here, dataset, "2026-01-05")
    assert scored.left_over() == []


def test_a_training_leaves_its_page_at_home_and_with_the_run(trained: Place) -> None:
    """One file, no network: pictures are in it."""
    here = trained.here
    champion = here.registry.champion("payments")
    assert champion
    text = here.training_page(here.dataset("payments"), champion.training_key).read_text(encoding="utf-8")
    n_learned = int(champion.metrics["n_training"] + champion.metrics["n_calibrating"])
    assert f"learned <b>{n_learned:,}</b> records" in text
    medians = (champion.metrics[f"{which}_fit_median"] for which in ("first", "second"))
    assert "<b>{:.3g}</b> nats after the first, <b>{:.3g}</b> after the second".format(*medians) in text
    assert text.count('<img src="data:image/png;base64,') == 4
    assert text.count('<source srcset="data:image/png;base64,') == 4  # the same for dark pages
    assert "by the first fit: this threshold is its own; the second fit, which serves, flags above" in text
    words = re.sub(r"base64,[\w+/=]+", "", text)  # any four letters may be in a picture
    assert "http" not in words.replace("http-equiv", "")
    assert "It was not judged yet: <code>vaewatch evaluate payments</code>" in text
    stored = sorted(path for path in trained.settings.home.parents[1].rglob("report.html") if path.is_file())
    assert text in [path.read_text(encoding="utf-8") for path in stored]


def test_the_page_of_a_training_is_named_wherever_a_version_is(
    scored: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """A page that nobody is told of is read by nobody."""
    here = scored.here
    dataset, champion = here.dataset("payments"), here.registry.champion("payments")
    assert champion
    page = here.training_page(dataset, champion.training_key)
    assert steps.train(here, "payments", force=True).page == str(page)
    told = steps.version(here, "payments", champion.version)
    assert told["page"] == str(page)
    print_version(told)
    assert "training's page" in capsys.readouterr().out
    flagged = queue.page(here.ledger, queue.Filters(dataset="payments", kind="flagged"), limit=1).rows[0]
    assert ("training's page", str(page)) in as_lines(trace(here, flagged.anomaly_id))
    of_batch = batch.rewrite(here, dataset, "2026-01-05").path
    (address,) = re.findall(r'<a href="([^"]+)">the training\'s page</a>', of_batch.read_text("utf-8"))
    assert (of_batch.parent / address).resolve() == page.resolve()
    served = f"/report/payments/2026-01-05/{address}".partition("/../../..")[2]
    assert as_role(here, may_write=False).get(served).text == page.read_text("utf-8")
    page.unlink()
    assert steps.version(here, "payments", champion.version)["page"] == ""


def test_a_flagged_record_leads_to_the_files_it_came_from_and_to_what_its_model_learned(
    scored: Place,
) -> None:
    """Every link is what it claims: digests are of the bytes, fingerprints are the ledger's and the
    registry's.
    """
    here = scored.here
    flagged = queue.page(here.ledger, queue.Filters(dataset="payments", kind="flagged"), limit=1).rows[0]
    judging.give(here.ledger, [flagged.anomaly_id], "anomaly", by="ann", note="asked")
    found = trace(here, flagged.anomaly_id[:8])
    state = here.ledger.current("payments")[flagged.batch_id]
    file = scored.incoming / f"{flagged.batch_id}.parquet"
    champion = here.registry.champion("payments")
    assert champion
    assert found.delivery["unchanged"] is True
    assert [one["sha256"] for one in found.delivery["files"]] == [
        hashlib.sha256(file.read_bytes()).hexdigest()
    ]
    assert found.batch["fingerprint"] == state.fingerprint
    assert found.contract == {"hash": state.contract_hash, "now": state.contract_hash, "unchanged": True, "file": str(scored.yaml)}  # fmt: skip
    assert found.model["detector_digest"] == champion.tags["detector_digest"]
    assert found.model["data_fingerprint"] == champion.tags["data_fingerprint"]
    assert all(one["unchanged"] for one in found.model["batches"])
    assert [(given["verdict"], given["by"], given["holds"]) for given in found.as_dict()["verdicts"]] == [
        ("anomaly", "ann", True)
    ]
    lines = dict(as_lines(found))
    assert lines["files are"] == "what was scored"
    assert lines["verdicts"].endswith(" ann: anomaly: asked")
    assert lines["batches learned"] == f"{len(found.model['batches'])}, all as they were"
    assert lines["model"].startswith(f"version {champion.version} (champion)")
    judging.give(here.ledger, [flagged.anomaly_id], "normal", by="ann")
    said = dict(as_lines(trace(here, flagged.anomaly_id)))["verdicts"].split("; ")
    assert [one.endswith(" (no longer counts)") for one in said] == [True, False]


def test_a_link_that_is_gone_is_said_to_be_gone_and_the_others_are_shown(scored: Place) -> None:
    """Files are archived, contracts mended, versions pruned; the question comes a year later."""
    here = scored.here
    flagged = queue.page(here.ledger, queue.Filters(dataset="payments", kind="flagged"), limit=1).rows[0]
    file = scored.incoming / f"{flagged.batch_id}.parquet"
    file.write_bytes(file.read_bytes() + b"x")
    scored.edit("max: 100000", "max: 99999")
    changed = trace(here, flagged.anomaly_id)
    assert changed.delivery["unchanged"] is False
    assert changed.contract["unchanged"] is False
    said = dict(as_lines(changed))
    assert said["files are"] == "not what was scored"
    assert f"(by now {changed.contract['now']})" in said["contract"]
    file.unlink()
    found = trace(here, flagged.anomaly_id)
    assert found.delivery["unchanged"] is False
    lines = as_lines(found)
    assert any("it is not there any more" in text for _, text in lines)
    assert dict(lines)["score"].startswith(f"{flagged.anomaly_score:.5g} nats")
    with pytest.raises(NotReady, match="no record"):
        trace(here, "ffffffffffffffff")
    scored.yaml.unlink()
    without = dict(as_lines(trace(here, flagged.anomaly_id)))
    assert without["files are"] == "not to be found"
    assert without["contract"].endswith("the dataset has no file any more")


def test_every_gate_stands_on_the_page_of_the_training_and_of_each_batch_that_the_version_scores(
    trained: Place,
) -> None:
    """Whoever asks whether the model deserves to serve reads it where the question comes up."""
    with_gates(trained, LENIENT)
    trained.edit("steps: 60", "steps: 70")
    steps.train(trained.here, "payments")
    judged = steps.evaluate(trained.here, "payments")
    here = trained.here
    version = here.registry.version("payments", 2)
    page = here.training_page(here.dataset("payments"), version.training_key)
    text = page.read_text(encoding="utf-8")
    kept = here.registry.amend(version, "report.html", lambda page: page)
    assert kept == text
    assert text.count('<img src="data:image/png;base64,') == 4
    assert text.count('<source srcset="data:image/png;base64,') == 4  # the rest is as it was
    findings = judged.decision.findings
    assert len(findings) == len(Gates.model_fields) - 2  # baselines and seed_variance are off
    told = rows(text.partition("Whether it may serve")[2])
    for finding, row in zip(findings, told, strict=True):
        assert row[0] == f"{finding.gate} {finding.level}"
        assert row[1].startswith(finding.verdict)
        assert row[2:4] == [getattr(finding, name) or "–" for name in ("value", "champion")]
        assert row[4] == f"{measured_by(finding.gate)} {finding.bound}".strip()
        assert finding.reason in row[1]
    assert "<code>vaewatch compare payments 2 1</code>" in text
    assert "not judged yet" not in text

    page.unlink()  # as on another machine, or where a process died before it
    steps.evaluate(trained.here, "payments")
    assert page.read_text(encoding="utf-8") == text

    steps.promote(trained.here, "payments", 2, by="ann", reason="good")
    trained.score("2026-01-01")
    batch_page = batch.path_of(here, here.dataset("payments"), "2026-01-01")
    scored_text = batch_page.read_text(encoding="utf-8")
    assert rows(scored_text.partition("<summary>The gates of version")[2].partition("</details>")[0]) == told
    trained.edit("flag:", "review: {page: 'https://review.example/'}\nflag:")
    there = trained.with_settings(mlflow_page="https://mlflow.example")
    batch.rewrite(there, there.dataset("payments"), "2026-01-01")
    rewritten = batch_page.read_text(encoding="utf-8")
    assert f'href="https://mlflow.example/#/runs/{version.run_id}"' in rewritten
    assert 'href="https://mlflow.example/#/models/vaewatch.payments/versions/2"' in rewritten
    gates.onto_training_page(there, there.dataset("payments"), version)
    linked = page.read_text(encoding="utf-8")
    assert 'href="https://review.example/disagreements/payments"' in linked
    assert f'href="https://mlflow.example/#/runs/{version.run_id}"' in linked
    assert linked.count("Whether it may serve") == 1


def in_mlflow(registry: Registry, version: ModelVersion) -> str:
    """The batch's page that is kept with a version's run; empty where there is none."""
    return registry.amend(version, NEWEST_BATCH, lambda page: page) or ""


def of_batch(page: str) -> str:
    return page.partition("batch ")[2].partition(" ")[0]


def another(place: Place, n_steps: int) -> ModelVersion:
    """A version of this test's own, which serves."""
    place.edit(f"steps: {n_steps - 10}", f"steps: {n_steps}")
    number = steps.train(place.here, "payments").model_version
    steps.promote(place.here, "payments", number, by="ann", reason="to see it", override=True)
    return place.here.registry.version("payments", number)


def test_the_page_of_the_newest_batch_that_a_version_scored_is_with_its_run_in_mlflow(trained: Place) -> None:
    """One page a version, whatever is scored in which order: whoever looks at a model sees its last night."""
    registry, version = trained.here.registry, another(trained, 70)
    assert in_mlflow(registry, version) == ""
    for key, shown in (
        ("2026-01-05", "2026-01-05"),
        ("2026-01-02", "2026-01-05"),
        ("2026-01-06", "2026-01-06"),
    ):
        trained.score(key)
        page = in_mlflow(registry, version)
        assert of_batch(page) == shown
    here = trained.here
    on_disk = batch.path_of(here, here.dataset("payments"), "2026-01-06").read_text(encoding="utf-8")
    words = [Counter(re.findall(r"\w+", re.sub("<[^>]+>", " ", one))) for one in (page, on_disk)]
    assert words[0] < words[1]  # the same facts, but for links to pages that are not there
    local = r'<a href="(?!https?://)[^"]*"'
    assert (re.findall(local, page), len(re.findall(local, on_disk))) == ([], 2)

    other = another(trained, 80)
    trained.score("2026-01-03", force=True)
    assert of_batch(in_mlflow(registry, other)) == "2026-01-03"
    page = in_mlflow(registry, version)  # held against one batch more by now
    assert of_batch(page) == "2026-01-06"

    steps.rollback(trained.here, "payments", by="bob", reason="it is too loud")
    told = " ".join(re.sub("<[^>]+>", " ", in_mlflow(registry, other)).split())
    assert of_batch(in_mlflow(registry, other)) == "2026-01-03"
    assert f"Version {other.version} was rolled back by bob" in told
    assert in_mlflow(registry, version) == page
    assert told_on_disk(trained, "2026-01-03", other) == "bob"
    assert told_on_disk(trained, "2026-01-06", version) == ""


def test_a_page_that_is_written_again_is_so_in_mlflow_where_it_is_its_versions_newest(
    trained: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Judged anew as an earlier batch came late, by `report` or as another version scored that one: what
    MLflow shows of the model must not be what was thought before.
    """
    here = trained.here
    registry, version, dataset = here.registry, another(trained, 70), here.dataset("payments")
    trained.score("2026-01-04")
    trained.score("2026-01-06")
    page = in_mlflow(registry, version)
    registry.log_newest_batch(version, "of before")
    monkeypatch.setenv("VAEWATCH_HOME", str(here.settings.home))
    monkeypatch.setenv("VAEWATCH_DATASETS", str(here.settings.datasets))
    monkeypatch.setenv(
        "VAEWATCH_TRACKING_URI", here.settings.tracking
    )  # whatever MLflow left in the environment
    told = CliRunner().invoke(app, ["report", "payments", "2026-01-04"]).output
    assert f"This batch was among those that version {version.version} learned from." in told
    assert in_mlflow(registry, version) == "of before", "the newest one's page is not this"
    CliRunner().invoke(app, ["report", "payments", "2026-01-06"])
    assert in_mlflow(registry, version) == page

    registry.log_newest_batch(version, "of before")
    other = another(trained, 80)
    trained.score("2026-01-05")
    assert of_batch(in_mlflow(registry, other)) == "2026-01-05"
    now = in_mlflow(registry, version)
    assert now == batch.away(here, dataset, here.ledger.current("payments")["2026-01-06"], version)
    assert now != page, "it was held against one batch more"
    said = list[str]()
    away = trained.with_settings(tracking_uri="http://127.0.0.1:9")
    batches = here.ledger.current("payments").values()
    newest.follow(away, dataset, {"2026-01-04"}, batches, said.append)
    assert said == []
    newest.follow(away, dataset, {"2026-01-06"}, batches, said.append)
    assert len(said) == 1
    assert said[0].startswith("the pages in MLflow were not updated: MLflow at http://127.0.0.1:9 ")


def told_on_disk(place: Place, batch_id: str, version: ModelVersion) -> str:
    """Who rolled a version back, as a batch's page tells it; empty where the page says nothing of that."""
    page = batch.path_of(place.here, place.here.dataset("payments"), batch_id).read_text(encoding="utf-8")
    text = " ".join(re.sub("<[^>]+>", " ", page).split())
    found = re.search(rf"Version {version.version} was rolled back by (\w+)", text)
    assert not (found and "Nothing speaks against these flags" in text)
    return found[1] if found else ""


def test_a_rollback_that_was_killed_tells_its_pages_when_it_is_given_again(
    trained: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused then, as it is done; the pages of batches that the other version scored, the newest first
    where there are many, must not say for ever that they can be trusted.
    """
    here, other = trained.here, another(trained, 70)
    trained.score("2026-01-05")
    trained.score("2026-01-03")
    here.registry.rollback("payments", by="bob", reason="it is too loud")  # and no further
    assert [told_on_disk(trained, day, other) for day in ("2026-01-03", "2026-01-05")] == ["", ""]
    for most, told in ((1, ["", "bob"]), (30, ["bob", "bob"])):
        monkeypatch.setattr(newest, "MOST", most)
        with pytest.raises(NotReady, match="no earlier one to go back to"):
            steps.rollback(here, "payments", by="ann", reason="again")
        assert [told_on_disk(trained, day, other) for day in ("2026-01-03", "2026-01-05")] == told
    assert here.ledger.serving_version("payments") == 1
    assert "was rolled back by bob" in in_mlflow(here.registry, other)


def test_a_page_that_mlflow_does_not_take_is_said_and_the_batch_is_scored_all_the_same(
    trained: Place,
) -> None:
    """The scores are published by then: were the step to fail, its retry would find nothing to do."""
    version, said = another(trained, 70), list[str]()
    (note,) = (p for p in trained.root.parent.parent.rglob("training.json") if version.run_id in str(p))
    in_the_way = note.with_name(NEWEST_BATCH)
    in_the_way.mkdir()
    done = trained.score("2026-01-05", say=said.append)
    assert [one.outcome for one in done.batches] == ["scored"]
    assert any("2026-01-05 is here, but not in MLflow: " in line for line in said), said

    away, batches = trained.with_settings(tracking_uri="http://127.0.0.1:9"), trained.here.ledger
    said.clear()
    unknown = replace(version, run_id="0" * 32)  # MLflow remembers where the files of a run lie
    newest.keep(away, away.dataset("payments"), unknown, batches.current("payments").values(), said.append)
    assert len(said) == 1
    assert "2026-01-05 is here, but not in MLflow: MLflow at http://127.0.0.1:9 could not " in said[0]


def rows(page: str) -> list[list[str]]:
    """The cells of the first table's body, as text."""
    body = page.partition("<tbody>")[2].partition("</tbody>")[0]
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in body.split("</tr>")]
    return [
        [" ".join(unescape(re.sub("<[^>]+>", " ", cell)).split()) for cell in row] for row in cells if row
    ]
