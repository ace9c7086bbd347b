"""Challenger against champion on the sample feed: a worse one is refused for the right reason, an equal one
passes.

The models are small and quick: two members, some hundred steps. How often two equal trainings of the full
size fail a gate is measured separately (docs/log.md); here one pair stands for them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline.config.dataset import Dataset
from pipeline.config.files import load_dataset
from pipeline.config.gates import Gates
from pipeline.detection.calibration import Calibration
from pipeline.detection.detector import Detector
from pipeline.evaluation import Churn, Decision, Difference, Evidence, Share, decide
from pipeline.evaluation.contenders import Contender, Offered
from pipeline.evaluation.differences import excess
from pipeline.evaluation.injection import gross, injected
from pipeline.evaluation.measurement import measure, unshared
from pipeline.evaluation.told import measured_by, rows, told
from pipeline.records.holdout import BATCH_ID, RECORD_KEY, ROW_NUMBER, HeldOut, modelled
from pipeline.records.window import DAY
from pipeline.sample import SamplePlan, generate

from . import evidence_data

pytestmark = pytest.mark.filterwarnings("ignore::vae_core.DataWarning", "ignore::vae_core.TrainingWarning")
PAYMENTS = load_dataset(Path(__file__).parents[2] / "dags" / "datasets" / "payments.yaml")
RECIPE = {"n_latents": 10, "steps": 400, "minibatch": 256, "n_members": 2}
N_LEARNED, N_CALIBRATING = 9_000, 2_500


def taught(seed: int = 1, **recipe: Any) -> Dataset:
    train = PAYMENTS.train.model_copy(update={"seed": seed, "recipe": {**RECIPE, **recipe}})
    return PAYMENTS.model_copy(update={"train": train})


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """Ten days of payments in an order of chance, with their keys."""
    folder = tmp_path_factory.mktemp("feed")
    made = generate(folder, SamplePlan(days=10, records_per_day=2000, hostile=False))
    tables = []
    for batch_id in made.batch_ids:
        table = pq.read_table(made.incoming / f"{batch_id}.parquet")
        fee = table.column_names.index("fee")
        table = table.set_column(fee, "fee", table["fee"].cast(pa.float64()))
        keys = table["transaction_id"]
        table = table.select(modelled(PAYMENTS)).append_column(BATCH_ID, pa.array([batch_id] * len(table)))
        table = table.append_column(ROW_NUMBER, pa.array(range(len(table))))
        tables.append(table.append_column(RECORD_KEY, keys))
    whole = pa.concat_tables(tables)
    return whole.take(np.random.default_rng(7).permutation(whole.num_rows))


@pytest.fixture(scope="module")
def learned(feed: pa.Table) -> pa.Table:
    return feed.slice(0, N_LEARNED + N_CALIBRATING)


@pytest.fixture(scope="module")
def held(feed: pa.Table, learned: pa.Table) -> HeldOut:
    """The rest: what no model of these tests has seen."""
    rest = feed.slice(learned.num_rows)
    return held_out(rest)


def held_out(records: pa.Table) -> HeldOut:
    if DAY not in records.column_names:
        records = records.append_column(DAY, pc.index_in(records[BATCH_ID], pc.unique(records[BATCH_ID])))
    none = records.slice(0, 0)
    newest = pc.greater_equal(records[BATCH_ID], "2026-01-05")
    return HeldOut(0.4, records, newest, records.filter(newest), none, none, none)


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    """Every column by itself in another order: each as it was, and nothing goes together."""
    random = np.random.default_rng(seed)
    return pa.table({n: table[n].take(random.permutation(table.num_rows)) for n in table.column_names})


def mixed(table: pa.Table, share: float, seed: int) -> pa.Table:
    """So large a share of the records is of values that do not go together."""
    odd = pa.array(np.random.default_rng(seed).random(table.num_rows) < share)
    other = shuffled(table, seed)
    columns = {n: (other[n].combine_chunks(), table[n].combine_chunks()) for n in table.column_names}
    return pa.table({n: pc.if_else(odd, *both) for n, both in columns.items()})


Trained = Callable[[str], Contender]


@pytest.fixture(scope="module")
def trained(learned: pa.Table) -> Trained:
    """A model by what was done to it, trained once."""
    parts = learned.slice(0, N_LEARNED), learned.slice(N_LEARNED)

    def train(dataset: Dataset, part: pa.Table, calibrating: pa.Table) -> Contender:
        detector = Detector.train(dataset, part, calibrating, records_per_day=2000.0, device="cpu")
        return Contender(detector, 1, part.num_rows + calibrating.num_rows)

    @cache
    def of(what: str) -> Contender:
        match what:
            case "good":
                return train(taught(), *parts)
            case "other seed":
                return train(taught(seed=2), *parts)
            case "brief":
                return train(taught(steps=60), *parts)
            case "collapsed":
                return train(taught(kl_weight=1000.0), *parts)
            case "shuffled":
                return train(taught(), shuffled(parts[0], 1), shuffled(parts[1], 2))
            case "contaminated":
                return train(taught(), mixed(parts[0], 0.3, 1), mixed(parts[1], 0.3, 2))
            case "ten rows":
                return train(taught(), parts[0].slice(0, 10), parts[1].slice(0, 20))
        raise AssertionError(what)

    return of


@pytest.fixture(scope="module")
def judged(trained: Trained, held: HeldOut, learned: pa.Table) -> Callable[[str, str | None], Evidence]:
    """The evidence for a model against another."""

    @cache
    def of(challenger: str, champion: str | None) -> Evidence:
        other = trained(champion) if champion else None
        return evidence_of(replace(trained(challenger), version=2), other, held, learned)

    return of


def evidence_of(one: Contender, other: Contender | None, held: HeldOut, learned: pa.Table) -> Evidence:
    days = ("2026-01-01", "2026-01-10")
    return measure(PAYMENTS, held, one, other, batches=days, at=datetime.now(UTC), learned=learned)


def failed(decision: Decision) -> set[str]:
    return {finding.gate for finding in decision.findings if finding.refuses}


@pytest.mark.parametrize(
    ("what", "gates", "words"),
    [
        ("shuffled", {"recall", "negative_elbo"}, "it did not learn which values go together in a record"),
        ("contaminated", {"recall"}, "its threshold lies far above ordinary records"),
        ("collapsed", {"recall", "negative_elbo"}, "collapsed onto the prior; lower train.recipe.kl_weight"),
        ("ten rows", {"recall", "negative_elbo"}, "it learned from 30 records, the champion from 11,500"),
    ],
)
def test_a_worse_challenger_is_refused_for_the_right_reason(
    judged: Callable[..., Evidence], what: str, gates: set[str], words: str
) -> None:
    """Whoever is woken by it must not have to find out what happened."""
    decision = decide(judged(what, "good"), Gates())
    assert decision.outcome == "refuse"
    assert gates <= failed(decision), decision.sentence
    assert words in decision.cause, decision.sentence
    assert decision.sentence.startswith("refused: ")


def offered_to(records: pa.Table, held: HeldOut, trained: Trained, batch_ids: list[str]) -> Evidence:
    """The evidence for a model that is offered these records, beside a good one."""
    one, other = replace(trained("other seed"), version=2), trained("good")
    days, now = ("2026-01-01", "2026-01-10"), datetime.now(UTC)
    return measure(
        PAYMENTS, held, one, other, batches=days, at=now, offered=Offered(records, tuple(batch_ids))
    )


@pytest.fixture(scope="module")
def days(feed: pa.Table) -> list[str]:
    found: list[str] = pc.unique(feed[BATCH_ID]).to_pylist()
    return sorted(found)


@pytest.mark.parametrize(("share", "fails"), [(0.0, False), (0.05, False), (0.3, True)])
def test_records_that_are_not_those_held_out_beside_them_are_known_by_the_champion(
    learned: pa.Table, held: HeldOut, trained: Trained, days: list[str], share: float, fails: bool
) -> None:
    """Whatever a training made of them: the challenger itself is as good as the champion."""
    evidence = offered_to(mixed(learned, share, 3), held, trained, days)
    decision = decide(evidence, Gates())
    assert ("learned" in failed(decision)) == fails, decision.sentence
    assert evidence.learned
    assert evidence.learned.least <= share
    if fails:
        assert failed(decision) == {"learned"}
        assert decision.cause.startswith("it learned many odd ones, at least ")


def test_an_event_and_a_new_regime_are_in_both_alike(
    learned: pa.Table, held: HeldOut, trained: Trained, days: list[str]
) -> None:
    """Half of the days are of values that the champion does not know to go together. Where the contamination
    is in the batches themselves it is held out, too, and nothing is said."""
    since = days[5]

    def changed(table: pa.Table) -> pa.Table:
        new = pc.greater_equal(table[BATCH_ID], since)
        model = modelled(PAYMENTS)
        odd = shuffled(table.select(model), 4)
        columns = {
            n: pc.if_else(new, odd[n].combine_chunks(), table[n].combine_chunks()) if n in model else table[n]
            for n in table.column_names
        }
        return pa.table(columns)

    both = offered_to(changed(learned), held_out(changed(held.records)), trained, days)
    assert both.learned
    assert both.learned.value < both.learned.chance
    alone = offered_to(changed(learned), held, trained, days)
    assert "learned" in failed(decide(alone, Gates()))


def test_only_the_batches_that_a_training_read_are_compared(
    learned: pa.Table, held: HeldOut, trained: Trained, days: list[str]
) -> None:
    """A version of last week is not blamed for what came since."""
    early = learned.filter(pc.less(learned[BATCH_ID], days[3]))
    evidence = offered_to(early, held, trained, days[:3])
    assert evidence.learned
    n_beside = pc.sum(pc.less(held.records[BATCH_ID], days[3])).as_py()
    assert (evidence.learned.n, evidence.learned.n_others) == (early.num_rows, n_beside)


def test_chance_is_exceeded_once_in_a_hundred_and_a_share_hardly_ever_overstated() -> None:
    """Records of a day are alike; keys part them. 3,000 drawings: fifteen in a thousand would be seen by
    chance once in a hundred such tests."""
    random = np.random.default_rng(1)
    too_many = overstated = 0
    for _ in range(3_000):
        day = np.repeat(random.normal(0, 5, 10), 120)
        records = day + random.normal(0, 1, len(day))
        is_held = random.random(len(day)) < 0.2
        offered, beside = records[~is_held], records[is_held]
        found = excess(offered, beside)
        odd = np.where(random.random(len(offered)) < 0.3, 100.0, offered)
        spoiled = excess(odd, beside)
        assert found
        assert spoiled
        too_many += found.least > 0
        overstated += spoiled.least > (odd == 100.0).mean()
    assert too_many / 3_000 < 0.015
    assert overstated / 3_000 < 0.015
    assert excess(np.empty(0), np.ones(3)) is None


def test_an_equal_challenger_passes_and_a_better_one(judged: Callable[..., Evidence]) -> None:
    """Another seed is nobody's fault; a training that was cut short may not keep its successor out."""
    equal = decide(judged("other seed", "good"), Gates())
    assert equal.outcome == "promote", equal.sentence
    better = decide(judged("good", "brief"), Gates())
    assert better.outcome == "promote", better.sentence
    worse = decide(judged("brief", "good"), Gates())
    assert "recall" in failed(worse), worse.sentence


def test_a_first_model_is_held_against_the_baselines_alone(judged: Callable[..., Evidence]) -> None:
    """There is nobody to compare it with; a collapsed one must not serve all the same."""
    good = decide(judged("good", None), Gates())
    assert good.outcome == "promote", good.sentence
    assert {f.gate for f in good.findings if f.verdict == "not judged"} >= {"recall", "negative_elbo", "kept"}
    for what in ("collapsed", "ten rows", "shuffled"):
        refused = decide(judged(what, None), Gates())
        assert "baselines" in failed(refused), f"{what}: {refused.sentence}"


def test_among_odd_records_the_champion_that_flags_them_is_not_the_worse_one(
    trained: Trained, held: HeldOut, learned: pa.Table
) -> None:
    """The night's window holds what the night's training learned: the holdout is contaminated as well."""
    odd = held_out(mixed(held.records, 0.3, 5))
    keyed = odd.records.drop_columns([DAY])
    for name in (BATCH_ID, RECORD_KEY, ROW_NUMBER):
        keyed = keyed.drop_columns([name]).append_column(name, held.records[name])
    evidence = evidence_of(
        replace(trained("contaminated"), version=2), trained("good"), held_out(keyed), learned
    )
    decision = decide(evidence, Gates())
    assert "recall" in failed(decision), decision.sentence
    assert "times as many of these records as promised: it learned many odd ones as normal" in decision.cause
    event, regime, promotion, meanwhile = decision.ways
    assert "label them anomaly or data_error" in event
    assert "set train.window_days" in regime
    one, other = evidence.challenger, evidence.champion
    assert other
    assert other.flag_rate
    assert f"the champion {other.flag_rate.value:.3g} times" in promotion
    assert (
        f"it finds {one.recall:.0%} of the injected anomalies, the champion {other.recall:.0%}" in promotion
    )
    assert f"vaewatch promote {evidence.dataset} --version 2 --by WHO --reason WHY" in promotion
    assert "flag.cap" in meanwhile
    assert told({"decision": decision.as_dict(), "evidence": evidence.as_dict()}, "").ways == decision.ways
    assert decide(replace(evidence, serves=False), Gates()).ways == ()
    passed = decide(evidence, Gates.model_validate(dict.fromkeys(failed(decision), "advisory")))
    assert (passed.outcome, passed.ways) == ("promote", ())


def test_a_day_of_an_event_in_the_holdout_hides_nobody_who_finds_anomalies(
    trained: Trained, held: HeldOut, learned: pa.Table
) -> None:
    """Half of a day's records are grossly wrong, more than the budget of all days: whatever is injected ranks
    behind them.
    """
    day = held.records[DAY].to_numpy()
    spoiled = (day == day.max()) & (np.arange(len(day)) % 2 == 0)
    wrong = gross(PAYMENTS, held.records).select(held.records.column_names)
    columns = zip(wrong.columns, held.records.columns, strict=True)
    mixture = [pc.if_else(pa.array(spoiled), *(x.combine_chunks() for x in pair)) for pair in columns]
    event = pa.table(mixture, names=held.records.column_names)
    calm, stormy = (
        evidence_of(trained("good"), None, held_out(records), learned).challenger.ranked_recall
        for records in (held.records, event)
    )
    assert calm
    assert stormy
    assert stormy > 0.6 * calm


def test_records_without_a_value_say_nothing_of_a_model(
    trained: Trained, held: HeldOut, learned: pa.Table
) -> None:
    """All sensors are silent three minutes of four: a copy of such a record is the record itself."""
    evidence = evidence_of(trained("good"), None, replace(held, newest=silenced(held.newest)), learned)
    assert evidence.challenger.gross > 0.95
    found, beside_silence = (
        evidence_of(trained("good"), None, held_out(records), learned).challenger.recall
        for records in (held.records, silenced(held.records))
    )
    assert found
    assert beside_silence
    assert beside_silence > 0.8 * found


def silenced(records: pa.Table) -> pa.Table:
    """Of four records three without any value."""
    silent = pa.array(np.arange(records.num_rows) % 4 > 0)
    for i, name in enumerate(records.column_names):
        if name not in {BATCH_ID, RECORD_KEY, ROW_NUMBER, DAY}:
            records = records.set_column(i, name, pc.if_else(silent, None, records[name].combine_chunks()))
    return records


def test_with_few_records_only_collapse_is_judged(trained: Trained, held: HeldOut, learned: pa.Table) -> None:
    """A small team's first weeks: the model serves; one that knows nothing does not."""
    few = replace(held_out(held.records.slice(0, 8)), newest=held.newest.slice(0, 60))
    evidence = evidence_of(trained("good"), None, few, learned)
    decision = decide(evidence, Gates())
    assert decision.outcome == "promote"
    assert {f.gate for f in decision.findings if f.verdict == "passed"} == {"collapse"}
    assert any("only 8 records are held out, 100 are needed" in f.reason for f in decision.findings)
    nothing = replace(few, share=0.0, records=few.records.slice(0, 0), recent=few.recent.slice(0, 0))
    without = decide(evidence_of(trained("good"), trained("other seed"), nothing, learned), Gates())
    assert without.outcome == "promote"
    assert "no records are held out from both versions (promote.holdout)" in " ".join(without.notes)
    blank = replace(evidence, challenger=replace(evidence.challenger, gross=0.5))
    assert failed(decide(blank, Gates())) == {"collapse"}
    constant = replace(evidence, challenger=replace(evidence.challenger, distinct=0.02))
    assert "training broke down" in decide(constant, Gates()).sentence


def test_evidence_and_decision_are_plain_json(
    judged: Callable[..., Evidence], trained: Trained, held: HeldOut
) -> None:
    """They are kept beside the model and read by people with other tools."""
    evidence = judged("shuffled", "good")
    told = json.loads(
        json.dumps({"evidence": evidence.as_dict(), "decision": decide(evidence, Gates()).as_dict()})
    )
    assert told["evidence"]["challenger"]["recall_of"].keys() == {"shifted", "swapped", "category", "several"}
    assert told["decision"]["outcome"] == "refuse"
    churn = told["evidence"]["churn"]
    assert churn["examples"]
    for example in churn["examples"]:
        by = [
            one for one, end in (("challenger", ""), ("champion", "_champion"))
            if example[f"score{end}"] > churn[f"threshold{end}"]
        ]  # fmt: skip
        assert by == [example["by"]]
        flagging = trained("shuffled" if by == ["challenger"] else "good").detector
        key, number = example["record_key"], example["row_number"]
        record = held.newest.filter(pc.equal(held.newest[RECORD_KEY], key))
        assert (record[BATCH_ID].to_pylist(), record[ROW_NUMBER].to_pylist()) == (
            [example["batch_id"]],
            [number],
        )
        if example in churn["examples"][::20]:  # each takes a while by itself
            (why,) = flagging.explain(record, taught())
            assert [one["column"] for one in example["reasons"]] == [one["column"] for one in why.reasons]


def test_densities_of_other_columns_are_not_held_against_each_other(judged: Callable[..., Evidence]) -> None:
    """A column more costs nats, whatever it is worth: whoever adds one would be refused every night."""
    evidence = replace(judged("shuffled", "good"), unshared=("age", "fee", "hour", "shop"))
    gates = Gates.model_validate(dict.fromkeys(("recall", "baselines"), "off"))
    (found,) = (one for one in decide(evidence, gates).findings if one.gate == "negative_elbo")
    assert found.verdict == "not judged"
    assert "only one of the two models age, fee, hour and 1 more" in found.reason


def test_the_columns_that_two_versions_do_not_share_are_known(trained: Trained) -> None:
    features = trained("good").detector.features
    name, *others = features.numeric
    fewer = replace(features, numeric={other: features.numeric[other] for other in others})
    assert unshared(features, features) == ()
    assert unshared(features, fewer) == unshared(fewer, features) == (name,)


def test_where_no_injected_kind_tells_the_latents_do(judged: Callable[..., Evidence]) -> None:
    """On sensors' derived columns nobody finds a swapped value, and a model of shuffled columns loses nothing
    there.
    """
    shuffled = judged("shuffled", "good")
    assert shuffled.champion
    known = {k: d for k, d in shuffled.differences.items() if not k.startswith("recall of ")}
    for says, words in (
        (2.4, "its latents carry 2.4 nats of a record, the champion's 5.4"),
        (4.0, "trained too"),
    ):
        one = replace(shuffled.challenger, kl_divergence=says)
        evidence = replace(
            shuffled,
            challenger=one,
            champion=replace(shuffled.champion, kl_divergence=5.4),
            differences=known,
        )
        gates = Gates.model_validate({"recall": "off"})
        assert decide(evidence, gates).cause.startswith(words)


def test_each_judged_gate_says_its_number_its_unit_what_it_is_and_what_passes(
    judged: Callable[..., Evidence],
) -> None:
    """Who decides at night must not have to look up what `kept 0 lost` means."""
    findings = decide(judged("other seed", "good"), Gates()).as_dict()["findings"]
    said = {row.gate: row for row in rows(findings)}
    assert said.keys() == Gates.model_fields.keys() - {"seed_variance"}  # which is off
    assert all(row.what and row.bound and row.value for row in said.values() if row.verdict != "not judged")
    for gate, value, beside, bound in (
        ("recall", r"[\d.]+%", r"[\d.]+%", "up to 10 percentage points fewer pass"),
        ("recall_floor", r"[\d.]+%", r"unaltered: [\d.]+%", "5 percentage points more than unaltered pass"),
        ("baselines", r"[\d.]+%", r"[\w ]+: [\d.]+%", "up to 5 percentage points fewer pass"),
        ("negative_elbo", r"-?[\d.]+ nats", r"-?[\d.]+ nats", "up to 1 nat more passes"),
        ("flag_rate", r"[\d.]+ times", r"[\d.]+ times", "0.1 to 3 times pass"),
        ("kept", "none", "", "none passes, except those in promote.gates.kept.allowed"),
    ):
        row = said[gate]
        assert re.fullmatch(value, row.value)
        assert re.fullmatch(beside, row.beside)
        assert row.bound == bound
    assert said["precision"].verdict == "not judged"  # nobody has judged anything yet
    assert measured_by("a gate of an earlier release") == ""


def test_a_first_model_that_flags_no_altered_record_serves_and_says_so(
    judged: Callable[..., Evidence], trained: Trained, held: HeldOut, learned: pa.Table
) -> None:
    """One event in the days that set the threshold, and later nights are quiet for the wrong reason."""
    heard = decide(judged("good", None), Gates())
    assert next(f for f in heard.findings if f.gate == "recall_floor").verdict == "passed"
    good = trained("good").detector
    above = Calibration(good.calibration.scores + np.float32(1e4))
    deaf = Contender(replace(good, calibration=above), 1, N_LEARNED)
    evidence = evidence_of(deaf, None, held, learned)
    gates = {"flag_rate": "off"}  # on the day of the event the promised number was flagged
    decision = decide(evidence, Gates.model_validate(gates))
    assert decision.outcome == "promote", decision.sentence
    assert "; failed, but advisory: recall_floor" in decision.sentence
    assert any("see what sets the threshold" in note for note in decision.notes)
    strict = decide(evidence, Gates.model_validate(gates | {"recall_floor": "required"}))
    assert failed(strict) == {"recall_floor"}


def test_what_was_set_otherwise_is_the_first_thing_to_look_at(judged: Callable[..., Evidence]) -> None:
    """Whoever changed a setting yesterday should not be sent to look for odd batches."""
    changed = {
        f"train.recipe.{name}": ("1200", "150") for name in ("steps", "minibatch", "seed", "n_latents")
    }
    cause = decide(replace(judged("shuffled", "good"), changed=changed), Gates()).cause
    assert cause.startswith(
        "its settings differ from the champion's: train.recipe.steps 150 (was 1200), train.recipe.minibatch 150 (was 1200), "
        "train.recipe.seed 150 (was 1200) and 1 more; if not that, it did not learn which values go together in a record"
    )


def test_a_version_that_does_not_serve_is_not_called_the_champion(judged: Callable[..., Evidence]) -> None:
    """Of any two versions nobody has to replace the other: what sets them apart is said, and no cause that
    only a challenger can have; neither waits in the other's shadow.
    """
    asked = Gates.model_validate({"flag_rate": {"highest": 1}, "p_values": {"highest": 1}})
    challenged = judged("shuffled", "good")
    compared = replace(challenged, serves=False)
    before, after = (decide(evidence, asked).as_dict() for evidence in (challenged, compared))
    assert "the champion finds" in str(before["findings"])
    assert "version 1 finds" in str(after["findings"])
    assert not [found["reason"] for found in after["findings"] if "champion" in found["reason"]]
    assert (bool(before["cause"]), after["cause"]) == (True, "")
    set_otherwise = replace(compared, changed={"train.recipe.steps": ("1200", "150")})
    assert decide(set_otherwise, asked).cause == "train.recipe.steps 150 (version 1: 1200)"
    good = replace(judged("other seed", "good"), serves=False)
    assert decide(good, Gates(), shadow_days=3).outcome == "promote"


def test_finding_no_more_than_chance_would_is_finding_nothing(judged: Callable[..., Evidence]) -> None:
    """Where half of all records are flagged, half of the anomalies are found by nobody."""
    evidence = judged("good", None)
    for above, passes in ((0.001, False), (0.08, True)):
        unaltered = {**evidence.differences, "unaltered": Difference(above, 0.005, 2000)}
        judged_so = decide(replace(evidence, differences=unaltered), Gates())
        found = next(f for f in judged_so.findings if f.gate == "recall_floor")
        assert (found.verdict == "passed") == passes


def test_chance_is_allowed_for_on_top_of_the_margin(judged: Callable[..., Evidence]) -> None:
    """Twelve percent less is a refusal where it is known to be twelve, and none where it may be seven."""
    equal = judged("other seed", "good")
    for error, passes in ((0.02, True), (0.001, False)):
        loss = {**equal.differences, "recall": Difference(-0.12, error, 2000)}
        decision = decide(replace(equal, differences=loss), Gates())
        assert ("recall" not in failed(decision)) == passes


def notes_of(evidence: Evidence, **gates: str) -> dict[str, str]:
    findings = decide(evidence, Gates.model_validate(gates)).findings
    return {one.gate: one.reason for one in findings if one.verdict == "passed" and one.reason}


def test_a_gate_that_passes_with_a_value_beyond_its_bound_says_why() -> None:
    """Else 3.50 times stands beside "0.1 to 3 times pass" and "passed"."""
    by_chance, usual = "outside the bound, but within chance", evidence_data.evidence_of()
    of_usual = {"recall": "behind by 2.0 points, within the margin of 10"}
    assert notes_of(usual) == of_usual
    one = replace(usual.challenger, flagged=Share(7, 200), precision=Share(15, 30))
    other = replace(usual.challenger, version=1, recall=0.63, precision=Share(20, 30))
    few = replace(usual, challenger=one, champion=other)
    assert notes_of(few) == of_usual | {"flag_rate": by_chance, "precision": by_chance}
    beyond = {
        "recall": Difference(-0.12, 0.02, 900),
        "unaltered": Difference(0.04, 0.01, 900),
        "negative_elbo": Difference(1.1, 0.2, 900),
        "IsolationForest": Difference(-0.06, 0.02, 900),
        "another seed": Difference(-0.06, 0.02, 900),
    }
    churn = Churn(25, 21, (), 20.0, 22.0)
    found = notes_of(
        replace(usual, differences={**usual.differences, **beyond}, churn=churn), seed_variance="advisory"
    )
    assert found == dict.fromkeys(
        ("recall", "recall_floor", "baselines", "negative_elbo", "churn", "seed_variance"), by_chance
    )
    assert usual.champion
    one = replace(usual.challenger, recall=usual.champion.recall, ranked_recall=0.412)
    level = {"recall": Difference(0.0, 0.01, 900), "IsolationForest": Difference(-0.0184, 0.01, 900)}
    shown = replace(
        usual,
        challenger=one,
        baselines={"IsolationForest": 0.4304},
        differences={**usual.differences, **level},
    )
    assert notes_of(shown) == {"baselines": "behind by 1.8 points, within the margin of 5"}


def test_levels_decide_what_a_failure_means(judged: Callable[..., Evidence]) -> None:
    """Advisory is told, off is not looked at."""
    evidence = judged("shuffled", "good")
    names = ("recall", "baselines", "negative_elbo", "flag_rate")
    advisory = decide(evidence, Gates.model_validate(dict.fromkeys(names, "advisory")))
    assert advisory.outcome == "promote"
    assert any(note.startswith("recall: finds") for note in advisory.notes)
    off = decide(evidence, Gates.model_validate(dict.fromkeys(names, False)))
    assert not {finding.gate for finding in off.findings} & set(names)


def test_what_people_confirmed_counts_where_enough_of_it_is_held_out(judged: Callable[..., Evidence]) -> None:
    """Twenty verdicts and intervals that lie apart; a lost anomaly is named, and may be allowed by name."""
    equal = judged("other seed", "good")
    assert equal.champion
    found = replace(equal.champion, confirmed=Share(38, 40))
    for mine, refused in ((Share(20, 40), True), (Share(34, 40), False), (Share(3, 10), False)):
        evidence = replace(equal, champion=found, challenger=replace(equal.challenger, confirmed=mine))
        assert ("confirmed" in failed(decide(evidence, Gates()))) == refused
    lost = replace(equal, lost=("ab12",))
    decision = decide(lost, Gates())
    assert failed(decision) == {"kept"}
    assert "ab12" in decision.sentence
    assert decide(lost, Gates.model_validate({"kept": {"allowed": ["ab12"]}})).outcome == "promote"


def test_the_key_decides_the_anomaly(held: HeldOut) -> None:
    """Two versions, two nights: the same questions. And every kind does what its name says, within the
    contract.
    """
    records = held.records.slice(0, 1500)
    order = np.random.default_rng(3).permutation(records.num_rows)
    found, again = injected(PAYMENTS, records), injected(PAYMENTS, records.take(order))
    assert found.keys() == {"shifted", "swapped", "category", "several"}
    for kind, table in found.items():
        assert again[kind].take(np.argsort(order)).to_pylist() == table.to_pylist()
        changed = np.stack([
            ~np.asarray(
                pc.fill_null(pc.equal(table[n], records[n].cast(table[n].type)), True).to_numpy(
                    zero_copy_only=False
                )
            )
            for n in PAYMENTS.columns_with("numeric", "categorical")
        ]).sum(axis=0)
        if kind == "several":
            assert np.median(changed) >= 4
        else:
            assert changed.max() == 1
            assert (changed == 1).mean() > 0.95
        for name, column in PAYMENTS.columns.items():
            if column.role == "numeric" and column.max is not None:
                assert pc.max(table[name]).as_py() <= column.max
                assert pc.min(table[name]).as_py() >= column.min


def test_a_challenger_waits_in_the_shadow_as_long_as_asked(judged: Callable[..., Evidence]) -> None:
    """Neither a first model, which nobody stands before, nor one that is refused waits."""
    equal = judged("other seed", "good")
    assert decide(equal, Gates(), shadow_days=2).sentence == "waits: 0 of 2 days in the shadow of version 1"
    assert decide(replace(equal, shadow_days=2.0), Gates(), shadow_days=2).outcome == "promote"
    assert decide(judged("good", None), Gates(), shadow_days=2).outcome == "promote"
    assert decide(judged("shuffled", "good"), Gates(), shadow_days=2).outcome == "refuse"
