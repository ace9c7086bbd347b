"""From a trained version to one that serves, with real parts: what is refused stays out, what is promoted can
be explained and taken back.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import time
from datetime import UTC, datetime, timedelta
from html import unescape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from infra.demo_outcome import unserved
from pipeline import steps
from pipeline.errors import NotReady
from pipeline.records import holdout
from pipeline.records.window import age, choose_window
from pipeline.registry import EVALUATION
from pipeline.review import disagreements
from pipeline.training import training_set

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings("ignore::vae_core.DataWarning"),
]
ANN = {"by": "ann", "reason": "a test"}


def with_gates(place: Place, gates: str) -> None:
    """What these tests train is too quick to beat anything: they say what is asked."""
    place.yaml.write_text(
        place.yaml.read_text(encoding="utf-8") + f"promote:\n  gates: {gates}\n", encoding="utf-8"
    )


LENIENT = "{baselines: off, recall: {margin: 0.5}, negative_elbo: {margin: 30}, flag_rate: advisory, collapse: {least: 0.5}}"


def evaluate(place: Place, version: int | None = None) -> Any:
    return steps.evaluate(place.here, place.name, version)


def promote(place: Place, version: int | None = None, **how: Any) -> Any:
    return steps.promote(place.here, place.name, version, **{**ANN, **how})


def headline(place: Place, version: int) -> str:
    """What the page of a version's training says first."""
    here = place.here
    key = here.registry.version(place.name, version).training_key
    text = here.training_page(here.dataset(place.name), key).read_text(encoding="utf-8")
    return unescape(text.partition("<h1>")[2].partition("</h1>")[0])


def scores(place: Place, batch_id: str) -> pa.Table:
    found = place.table("scores")
    return found.filter(pc.equal(found["batch_id"], batch_id))


def test_no_training_sees_the_holdout_and_evaluations_see_nothing_else(validated: Place) -> None:
    """One record in both, and the comparison measures memory."""
    here, root = validated.here, validated.root
    dataset = here.dataset(validated.name)
    window = choose_window(dataset, list(here.ledger.current(validated.name).values()))
    tables = here.tables(dataset)
    learned = [
        training_set.read_window(
            dataset.model_copy(update={"train": dataset.train.model_copy(update={"seed": seed})}),
            window,
            tables,
            scratch=root / "read",
            threads=1,
        ).table
        for seed in (1, 2)
    ]
    held = holdout.read(dataset, window, dataset.promote.holdout, tables, scratch=root / "read", threads=1)
    assert learned[0].num_rows + held.records.num_rows == window.n_records
    names = holdout.modelled(dataset)
    parts = [set(map(str, part.select(names).to_pylist())) for part in (learned[0], held.records)]
    assert not parts[0] & parts[1]
    assert learned[0].equals(learned[1])
    assert 0 < pc.sum(held.recent).as_py() < held.records.num_rows
    assert set(held.newest[holdout.BATCH_ID].to_pylist()) <= set(window.batch_ids)


def test_another_seed_is_trained_and_held_beside_a_version_where_a_gate_asks_for_it(
    validated: Place,
) -> None:
    """The same training from another start, which leaves nothing behind: it is measured, not registered."""
    with_gates(validated, f"{LENIENT[:-1]}, seed_variance: {{level: required, most: 1}}}}")
    steps.train(validated.here, validated.name)
    found = steps.compare(validated.here, validated.name)
    (said,) = (one for one in found.decision.findings if one.gate == "seed_variance")
    assert (said.verdict, said.bound) == ("passed", "up to 100 points pass")
    seed = found.evidence.differences["another seed"]
    assert said.value == f"{100 * abs(seed.value):.1f} points"
    assert seed.error > 0  # the same seed finds the same anomalies, every one
    assert set(validated.models()) == {1}
    assert validated.left_over() == []


def test_a_first_model_serves_once_it_was_judged_and_the_second_once_it_is_promoted(validated: Place) -> None:
    """And each step leaves what somebody will ask for in a year."""
    with_gates(validated, LENIENT)
    trained = steps.train(validated.here, validated.name)
    assert (trained.model_version, trained.alias) == (1, "")
    assert {b.outcome for b in validated.score().batches} == {"waiting", "unchanged"}
    first = evaluate(validated)
    assert (first.outcome, first.model_version, first.alias) == ("passed", 1, "champion")
    assert validated.here.ledger.serving_version(validated.name) == 1
    assert evaluate(validated).outcome == "unchanged"

    validated.edit("steps: 60", "steps: 70")
    steps.train(validated.here, validated.name)
    second = evaluate(validated)
    assert (second.outcome, second.alias, second.against) == ("passed", "challenger", 1)
    again = evaluate(validated)
    assert again.outcome == "passed"
    assert again.decision is None  # the same records and champion: not measured again
    validated.score()  # with version 1: what it flags waits in the queue
    review = disagreements.newest(validated.here, validated.here.dataset(validated.name)).measured
    churn = _evaluation(validated, 2)["evidence"]["churn"]
    assert review
    assert (review.version, review.against, review.differ) == (2, 1, churn["differ"])
    assert len(review.records) == len(churn["examples"]) == min(100, churn["differ"])
    served = [one.state for one in review.records if one.flagged_by == 1]
    assert served
    assert all(served)
    held = {row["version"]: row["holdout"] for row in steps.versions(validated.here, validated.name)}
    one = _evaluation(validated, 2)["evidence"]
    assert held[2] == {
        "n": one["n_holdout"], **{name: one["challenger"][name] for name in ("recall", "negative_elbo")},
        "champion_recall": one["champion"]["recall"],
    }  # fmt: skip
    assert "champion_recall" not in held[1]  # none served
    code, output, errors = validated.run("versions", validated.name)
    assert code == 0, errors
    assert f"{one['challenger']['recall']:.0%} ({one['champion']['recall']:.0%})" in output
    code, output, errors = validated.run("versions", validated.name, "2")
    assert code == 0, errors
    assert f"{one['challenger']['negative_elbo']:.2f} nats" in output
    asked = steps.evidence(validated.here, validated.name).markdown
    mine, theirs = (one[which]["recall_of"]["shifted"] for which in ("challenger", "champion"))
    assert f"| shifted | {mine:.1%} | {theirs:.1%} |" in asked
    known = steps.version(validated.here, validated.name, 2)
    assert known["evaluation"]["evidence"] == one
    assert known["made_of"]["digest of the code"] in asked.replace("\\", "")
    done = promote(validated, reason="")
    assert (done.model_version, done.previous) == (2, 1)
    assert steps.history(validated.here, validated.name)[-1]["reason"] == "no reason was given"

    registry = validated.here.registry
    tags = registry.version(validated.name, 2).tags
    assert (tags["decision"], tags["evaluated_against"]) == ("promote", "1")
    kept = _evaluation(validated, 2)
    assert kept["evidence"]["challenger"]["version"] == 2
    assert kept["decision"]["outcome"] == "promote"
    told = [(e["what"], e["version"], e["by"]) for e in steps.history(validated.here, validated.name)]
    assert told == [
        ("trained", 1, "vaewatch"),
        ("passed", 1, "vaewatch"),
        ("promoted", 1, "vaewatch"),
        ("trained", 2, "vaewatch"),
        ("passed", 2, "vaewatch"),
        ("promoted", 2, "ann"),
    ]


def _evaluation(place: Place, version: int) -> dict[str, Any]:
    from mlflow.artifacts import download_artifacts

    run_id = place.here.registry.version(place.name, version).run_id
    uri = place.settings.tracking
    file = download_artifacts(
        run_id=run_id, artifact_path=EVALUATION, tracking_uri=uri, dst_path=str(place.root)
    )
    return dict(json.loads(Path(file).read_text(encoding="utf-8")))


def test_a_refused_challenger_stays_out_until_somebody_overrides_it_by_name(scored: Place) -> None:
    """And a rollback then gives the scores of before, to the bit."""
    day = scored.ledger()[0]["batch_id"]
    before = scores(scored, day)
    with pytest.raises(NotReady, match="payments has only version 1: there is nothing to compare it with"):
        steps.compare(scored.here, scored.name)
    with_gates(
        scored,
        "{baselines: off, collapse: {least: 0.5}, recall: advisory, flag_rate: advisory, negative_elbo: {margin: 0}}",
    )
    scored.edit("steps: 60", "steps: 60, kl_weight: 1000")
    steps.train(scored.here, scored.name)
    refused = evaluate(scored)
    assert (refused.outcome, refused.alias) == ("refused", "")
    assert scored.here.registry.challenger(scored.name) is None
    assert "negative_elbo: describes the holdout worse" in refused.reason
    assert "Likely: " in refused.reason
    assert headline(scored, 2).startswith("Refused: describes the holdout worse by ")
    with pytest.raises(
        NotReady, match=r"no challenger; version 2, the newest, was refused: .* --version 2 --reason WHY"
    ):
        promote(scored)
    with pytest.raises(NotReady, match=r"to promote it all the same, give a reason: vaewatch promote"):
        promote(scored, 2, override=True, reason="")
    assert scored.here.registry.champion(scored.name).version == 1  # type: ignore[union-attr]

    done = promote(scored, 2, override=True, reason="we want to see it")
    assert (done.outcome, done.model_version) == ("promoted", 2)
    assert "overrides: version 2 was refused" in done.reason
    newest = steps.history(scored.here, scored.name)[-1]
    assert newest["what"] == "promoted"
    assert newest["reason"].startswith("we want to see it; overrides: version 2 was refused")
    assert newest["decision"] == "refuse"
    assert headline(scored, 2).startswith("Promoted 20")
    scored.score(day, force=True)
    assert set(scores(scored, day)["model_version"].to_pylist()) == {2}
    steps.rollback(scored.here, scored.name, by="ann", reason="")
    assert steps.history(scored.here, scored.name)[-1]["reason"] == "no reason was given"
    assert headline(scored, 2).startswith("Rolled back, 20")
    scored.score(day, force=True)
    assert scores(scored, day).equals(before)


def test_a_version_that_nobody_has_judged_serves_only_by_somebodys_word(trained: Place) -> None:
    """A slip of a number must not put what no gate has seen before the champion."""
    trained.edit("steps: 60", "steps: 70")
    steps.train(trained.here, trained.name)
    by_number = ("promote", trained.name, "--version", "2", "--by", "ann")
    code, output, errors = trained.run(*by_number)
    assert code == 2, output
    assert "version 2 was never judged (vaewatch evaluate payments --version 2 does that)" in errors
    assert "--reason" in errors
    assert trained.run(*by_number, "--reason", " ")[0] == 2
    with pytest.raises(NotReady, match=r"never judged .*; to promote it all the same: .* --reason WHY"):
        promote(trained, 2)
    assert trained.here.registry.champion(trained.name).version == 1  # type: ignore[union-attr]
    assert "never judged" in steps.evidence(trained.here, trained.name, 2).objection

    code, output, errors = trained.run(*by_number, "--reason", "the gates take too long")
    assert code == 0, errors
    tags = trained.here.registry.version(trained.name, 2).tags
    assert tags["promoted_by"] == "ann"
    assert tags["promoted_reason"].startswith(
        "the gates take too long; overrides: version 2 was never judged"
    )
    key = trained.here.registry.version(trained.name, 2).training_key
    page = trained.here.training_page(trained.here.dataset(trained.name), key).read_text(encoding="utf-8")
    assert "By ann: the gates take too long; overrides: version 2 was never judged" in unescape(page)


def test_a_night_with_a_challenger_that_is_refused_goes_on_with_the_champion(scored: Place) -> None:
    """Protection is no failure: scored as ever, and the exit code of a good night."""
    with_gates(scored, "{baselines: off, flag_rate: advisory, recall: advisory, negative_elbo: {margin: 0}}")
    scored.edit("steps: 60", "steps: 60, kl_weight: 1000")
    here = scored.here
    here.ledger.set_trained(scored.name, datetime.now(UTC) - timedelta(days=2))
    code, output, errors = scored.run("run", scored.name, "--json")
    assert code == 0, output + errors
    receipts = {receipt["step"]: receipt for receipt in json.loads(output)}
    assert receipts["evaluate"]["outcome"] == "refused"
    assert "promote" not in receipts
    assert here.registry.champion(scored.name).version == 1  # type: ignore[union-attr]
    code, output, errors = scored.run("compare", scored.name)
    assert code == 0, errors
    assert "would be refused" in output
    code, output, errors = scored.run("history", scored.name)
    assert code == 0, errors
    assert "refused" in output


def test_a_night_whose_first_model_is_refused_is_refused_until_one_serves(validated: Place) -> None:
    """Batches pile up unscored: whoever schedules it must hear of it, every night."""
    with_gates(validated, f"{LENIENT[:-1]}, recall_floor: {{level: required, least: 1}}}}")
    for night in (1, 2):
        code, output, errors = validated.run("run", validated.name)
        assert code == 3, output + errors
        assert "no model serves, and batches wait; train again" in output, night
    assert output.count("the training's page: ") == 1
    assert headline(validated, 1).startswith("Refused: at its threshold it finds ")
    told = unserved(validated.here, validated.here.dataset(validated.name))  # the end of a demo
    assert "the first model was refused: recall_floor: " in told
    assert f"{validated.settings.home}/trainings/payments/" in told
    assert "vaewatch promote payments --version 1 --reason WHY" in told
    code, output, _ = validated.run("promote", validated.name, "--version", "1", "--reason", "to see it")
    assert code == 0, output
    assert validated.run("run", validated.name)[0] == 0


def test_a_version_that_misses_most_anomalies_serves_and_everybody_who_is_told_of_nights_is_told_once(
    validated: Place,
) -> None:
    """Nobody looks at gates on a quiet night, and this one is quiet for the wrong reason."""
    with_gates(validated, f"{LENIENT[:-1]}, recall_floor: {{least: 1}}}}\nreview: {{digest_file: told.txt}}")
    steps.train(validated.here, validated.name)
    first = evaluate(validated)
    assert (first.outcome, first.alias) == ("passed", "champion")
    assert first.reason.endswith("failed, but advisory: recall_floor")
    told = (validated.settings.home / "told.txt").read_text(encoding="utf-8")
    assert "payments: version 1 serves from now on, and misses most anomalies" in told
    validated.edit("steps: 60", "steps: 70")
    steps.train(validated.here, validated.name)
    evaluate(validated)
    said: list[str] = []
    assert promote(validated, say=said.append).outcome == "promoted"
    assert (validated.settings.home / "told.txt").read_text(encoding="utf-8") == told
    steps.score(validated.here, validated.name, "2026-01-01", say=said.append)
    assert any(line.strip().startswith("Few flags do not mean few anomalies: ") for line in said), said


def test_a_challenger_judged_against_another_champion_is_judged_again_first(trained: Place) -> None:
    """What passed against last week's champion may be worse than today's."""
    with_gates(trained, LENIENT)
    for n in (70, 80):
        trained.edit(f"steps: {n - 10}", f"steps: {n}")
        steps.train(trained.here, trained.name)
        assert evaluate(trained).outcome == "passed"
    promote(trained, 2, override=True)
    with pytest.raises(NotReady, match=r"version 3 was judged against version 1, and now version 2 serves"):
        promote(trained)
    assert evaluate(trained).against == 2
    assert promote(trained).model_version == 3


def test_a_challenger_is_promoted_though_the_champion_cannot_read_todays_columns(trained: Place) -> None:
    """It could not be measured beside it, and the champion can score nothing any more."""
    with_gates(trained, LENIENT)
    trained.edit("channel: {type: string, role: categorical", "channel: {type: string, role: ignored")
    steps.train(trained.here, trained.name)
    judged = evaluate(trained)
    assert (judged.outcome, judged.alias, judged.against, judged.champion) == (
        "passed",
        "challenger",
        None,
        1,
    )
    assert judged.reason.startswith("good enough by itself by ")
    why = "version 1 also reads channel, which the dataset's file leaves out now"
    assert f"not compared with the champion: {why}" in judged.notes
    assert not steps.evidence(trained.here, trained.name).objection
    assert promote(trained).model_version == 2


def test_an_answer_about_what_is_not_the_challenger_any_more_promotes_nothing(trained: Place) -> None:
    """Whoever said yes to last night's version has not seen tonight's: they are told, and how to insist."""
    with_gates(trained, LENIENT)
    for n in (70, 80):
        trained.edit(f"steps: {n - 10}", f"steps: {n}")
        steps.train(trained.here, trained.name)
        judged = evaluate(trained)
    assert judged.notes[-1] == "it takes the place of version 2, which passed and waits for somebody's word"
    with pytest.raises(
        NotReady, match=r"version 2 was not promoted: .*; version 3 is, which passed its gates"
    ):
        promote(trained, 2, override=True, as_challenger=True)
    steps.reject(trained.here, trained.name, 3, **ANN)
    with pytest.raises(NotReady, match=r"no other version is\. To promote it anyway: "):
        promote(trained, 2, as_challenger=True)
    assert trained.here.registry.champion(trained.name).version == 1  # type: ignore[union-attr]
    assert promote(trained, 2).outcome == "promoted"
    again = promote(trained, 2, as_challenger=True)  # tried again after it was done
    assert again.outcome == "unchanged"
    assert "by ann): nothing was changed" in again.reason


PROMOTES = """
    import sys, time
    from pathlib import Path
    from pipeline import steps
    from pipeline.errors import NotReady
    from pipeline.installation import Installation
    from pipeline.registry import Registry

    version, looked = int(sys.argv[1]), Registry.champion

    def champion(registry, dataset):
        found = looked(registry, dataset)
        Path(sys.argv[2]).touch()
        return found

    Registry.champion = champion
    try:
        done = steps.promote(Installation(), "payments", version, by=f"process {version}", reason="at once", override=True)
        print("won", done.model_version, done.previous)
    except NotReady as late:
        print("lost", late)
    sys.stdout.flush()
    """


def test_of_two_promotions_at_once_one_wins_and_the_other_says_so(trained: Place) -> None:
    """Two people press the button in one minute: both have to know which version serves."""
    for n in (70, 80):
        trained.edit(f"steps: {n - 10}", f"steps: {n}")
        steps.train(trained.here, trained.name)
    marks = {version: trained.root / f"looked {version}" for version in (2, 3)}
    with trained.here.ledger.changing_champion(
        trained.name
    ):  # holds both up between their look and their deed
        started = {
            version: subprocess.Popen(
                [sys.executable, "-c", textwrap.dedent(PROMOTES), str(version), str(mark)],
                env=trained.environment,
                cwd=Path(__file__).parents[2],
                stdout=subprocess.PIPE,
                text=True,
            )
            for version, mark in marks.items()
        }
        until = time.monotonic() + 240
        while not all(mark.exists() for mark in marks.values()):
            assert time.monotonic() < until
            time.sleep(0.1)
    said = {version: process.communicate(timeout=240)[0] for version, process in started.items()}
    (winner,) = [version for version, words in said.items() if words.startswith(f"won {version} 1")]
    (loser,) = set(said) - {winner}
    assert f"version {winner} became champion meanwhile (by process {winner}" in said[loser]
    assert f"version {loser} was not promoted: evaluate it again" in said[loser]
    here = trained.here
    assert here.registry.champion(trained.name).version == winner  # type: ignore[union-attr]
    assert here.ledger.serving_version(trained.name) == winner
    assert [e["version"] for e in here.registry.history(trained.name)] == [1, winner]


@pytest.mark.parametrize(
    "moment", ["set_registered_model_alias", "set_registered_model_tag", "delete_registered_model_alias"]
)
def test_a_promotion_killed_between_its_parts_is_what_it_was_or_what_it_shall_be(
    trained: Place, moment: str
) -> None:
    """Killed as it makes one of MLflow's requests: one champion at any time, and a repeat completes the
    rest.
    """
    trained.edit("steps: 60", "steps: 70")
    steps.train(trained.here, trained.name)
    trained.here.registry.set_challenger(trained.name, 2)
    code = f"""
        import os, signal
        from mlflow import MlflowClient
        from pipeline import steps
        from pipeline.installation import Installation
        setattr(MlflowClient, {moment!r}, lambda *_args, **_kwargs: os.kill(os.getpid(), signal.SIGKILL))
        steps.promote(Installation(), "payments", 2, by="ann", reason="a test", override=True)
        """
    killed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=trained.environment, check=False, timeout=240
    )
    assert killed.returncode < 0
    here = trained.here
    serves = here.registry.champion(trained.name)
    assert serves is not None
    assert serves.version == (1 if moment == "set_registered_model_alias" else 2)
    promote(trained, 2, override=True)
    named = {alias: v.version for v in here.registry.versions(trained.name) for alias in v.aliases}
    assert named == {"champion": 2, "previous": 1}
    assert here.ledger.serving_version(trained.name) == 2
    assert [(e["what"], e["version"]) for e in here.registry.history(trained.name)] == [
        ("promoted", 1),
        ("promoted", 2),
    ]


def test_a_challenger_in_its_shadow_keeps_its_place_until_the_days_are_full(trained: Place) -> None:
    """A new one every night would begin the count anew, and nothing would ever serve."""
    with_gates(trained, f"{LENIENT}\n  shadow_days: 2")
    for n in (70, 80):
        trained.edit(f"steps: {n - 10}", f"steps: {n}")
        steps.train(trained.here, trained.name)
        waits = evaluate(trained)
        assert (waits.outcome, waits.model_version) == ("waiting", 2)
        assert waits.reason == "waits: 0 of 2 days in the shadow of version 1"
    with pytest.raises(
        NotReady, match=r"version 2 waits: 0 of 2 days in the shadow of version 1; to promote it"
    ):
        promote(trained)
    trained.edit("shadow_days: 2", "shadow_days: 0")
    assert evaluate(trained).outcome == "passed"

    here = trained.here
    dataset, states = here.dataset(trained.name), list(here.ledger.current(trained.name).values())
    window = choose_window(dataset, states)
    since, days = window.after(window.batch_ids[-4])
    assert [batch.batch_id for batch in since] == window.batch_ids[-3:]
    span = age(window.batches[-1])[0] - age(window.batches[-4])[0]
    assert days == pytest.approx(span.total_seconds() / 86_400)
    assert days > 2
    assert window.after("2025-01-01")[0] == list(window.batches)
