"""The sample feed: reproducible, streamed, with anomalies and hostile days that are what their labels
claim.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from scipy.stats import ks_2samp

from pipeline import sample
from pipeline.sample import DRIFTS, KINDS, RULES, SamplePlan, SampleReceipt, generate, plan, records, world

FALSE_ALARM_RATE = 1e-6  # one needless failure in a million seeds
FRIENDLY = SamplePlan(days=6, records_per_day=1_500, anomaly_share=0.02, hostile=False)
DENSE = SamplePlan(days=3, records_per_day=20_000, anomaly_share=0.06, hostile=False)  # Thursday to Saturday
HOSTILE = SamplePlan(days=12, records_per_day=2_000)
BOUNDS = {  # the contract in the module's docstring
    "amount": (0, 100_000),
    "fee": (0, 2_500),
    "distance_km": (0, 20_040),
    "seconds_since_last": (0, np.inf),
    "items": (1, 1_000),
    "account_age_days": (0, 3_650),
    "credit_limit": (0, 20_000),
    "monthly_spend": (0, 20_000),
    "authorisation_ms": (0, 60_000),
    "terminal_uptime_h": (0, 25),
    "exchange_rate": (0.01, 2),
}
MAY_MISS = {"distance_km", "seconds_since_last", "credit_limit", "authorisation_ms", "terminal_uptime_h"}


def batch(receipt: SampleReceipt, batch_id: str) -> pa.Table:
    return pq.read_table(receipt.incoming / f"{batch_id}.parquet", page_checksum_verification=True)


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """Three days with many anomalies: the records, with their `kind` ("" for ordinary) and `wrong`
    columns.
    """
    receipt = generate(tmp_path_factory.mktemp("dense"), DENSE)
    records = pa.concat_tables([batch(receipt, batch_id) for batch_id in receipt.batch_ids]).to_pandas()
    truth = pq.read_table(receipt.truth).to_pandas().set_index("record_key")
    records["kind"] = records["transaction_id"].map(truth["kind"]).fillna("")
    records["wrong"] = records["transaction_id"].map(truth["column"].map(" ".join)).fillna("")
    return records.astype({"fee": float, "merchant_category": str})


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> SampleReceipt:
    return generate(tmp_path_factory.mktemp("hostile"), HOSTILE)


def test_the_same_plan_gives_the_same_bytes(tmp_path: Path, hostile: SampleReceipt) -> None:
    """A benchmark on the sample can be repeated anywhere, and a second run replaces the first one's files."""
    for _ in range(2):
        again = generate(tmp_path, HOSTILE)
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.*"))
    assert len(files) == HOSTILE.days + 2
    for file in files:
        assert (tmp_path / file).read_bytes() == (hostile.incoming.parents[1] / file).read_bytes()
    assert again.n_anomalies == hostile.n_anomalies


def test_another_seed_gives_other_records(tmp_path: Path) -> None:
    one = generate(tmp_path / "one", replace(FRIENDLY, days=1))
    two = generate(tmp_path / "two", replace(FRIENDLY, days=1, seed=8))
    assert not batch(one, "2026-01-01")["amount"].equals(batch(two, "2026-01-01")["amount"])


def test_a_longer_plan_begins_with_the_same_days(tmp_path: Path) -> None:
    """More history can be added to a feed without changing what has been delivered."""
    short = generate(tmp_path / "short", FRIENDLY)
    long = generate(tmp_path / "long", replace(FRIENDLY, days=20, hostile=True))
    for batch_id in short.batch_ids:
        name = f"{batch_id}.parquet"
        assert (short.incoming / name).read_bytes() == (long.incoming / name).read_bytes()
    n_short = sum(short.n_anomalies.values())
    assert pq.read_table(long.truth).slice(0, n_short).equals(pq.read_table(short.truth))


def test_a_big_day_is_several_row_groups_and_its_size_costs_no_memory(tmp_path: Path) -> None:
    """A feed larger than memory can be written: thrice the records need hardly more room."""
    program = (
        "import resource, sys; from pathlib import Path; from pipeline.sample import SamplePlan, generate; "
        "generate(Path(sys.argv[1]), SamplePlan(1, int(sys.argv[2]), hostile=False)); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    kilobytes = [
        int(
            subprocess.run(
                [sys.executable, "-c", program, tmp_path, n], check=True, capture_output=True
            ).stdout
        )
        for n in ("210000", "630000")
    ]
    path = tmp_path / "incoming" / "payments" / "2026-01-01.parquet"
    metadata = pq.read_metadata(path)
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [records.BLOCK_ROWS] * 9 + [630_000 - 9 * records.BLOCK_ROWS]
    assert kilobytes[1] - kilobytes[0] < 0.25 * pq.read_table(path).nbytes * (420 / 630) / 1024


def test_every_kind_has_its_share_of_the_records_as_planned(tmp_path: Path) -> None:
    """Kinds are dealt out like cards, on the days of the training history as on all others."""
    receipt = generate(tmp_path, FRIENDLY)
    truth = pq.read_table(receipt.truth).to_pandas()
    assert set(truth["kind"]) == set(KINDS)
    for _, kinds in truth.groupby("batch_id")["kind"]:
        planned = FRIENDLY.anomaly_share * FRIENDLY.records_per_day / len(KINDS)
        assert kinds.value_counts().between(planned - 1, planned + 1).all()
    assert truth["kind"].value_counts().to_dict() == receipt.n_anomalies
    assert receipt.n_records == FRIENDLY.days * FRIENDLY.records_per_day


def test_the_truth_names_records_that_exist_once_and_repeated_ones_twice(hostile: SampleReceipt) -> None:
    truth = pq.read_table(hostile.truth).to_pandas()
    for batch_id, labels in truth.groupby("batch_id"):
        times = batch(hostile, str(batch_id))["transaction_id"].to_pandas().value_counts()
        expected = np.where(labels["kind"] == "duplicated_block", 2, 1)
        assert (times[labels["record_key"]].to_numpy() == expected).all()
        assert (labels["column"].str[0].isin(world.RECORDS.names)).all()


def test_repeated_records_are_consecutive_and_equal_in_every_column(tmp_path: Path) -> None:
    receipt = generate(tmp_path, replace(FRIENDLY, days=1))
    records = batch(receipt, "2026-01-01")
    repeated = receipt.n_anomalies["duplicated_block"]
    again = records.slice(len(records) - repeated)
    start = pc.index(records["transaction_id"], again["transaction_id"][0]).as_py()
    assert records.slice(start, repeated).equals(again)


def test_a_broken_correlation_is_ordinary_in_each_column_alone(dense: pd.DataFrame) -> None:
    """Only a model of several columns can find it: neither value says anything by itself."""
    for wrong, columns in (
        ("fee amount", ["fee", "amount"]),
        ("monthly_spend credit_limit", ["monthly_spend"]),
    ):
        broken, ordinary = dense[dense["wrong"] == wrong], dense[dense["kind"] == ""]
        for column in columns:
            assert ks_2samp(broken[column], ordinary[column]).pvalue > FALSE_ALARM_RATE
        ratio = np.log(dense[wrong.split()[0]] / dense[wrong.split()[1]])
        expected = ratio[ordinary.index].groupby([dense["channel"]]).median()
        error = (ratio - dense["channel"].map(expected)).abs()
        assert error[broken.index].median() > 3 * error[ordinary.index].median()


def test_an_impossible_pair_is_made_of_two_ordinary_values(dense: pd.DataFrame) -> None:
    for wrong in ("channel merchant_category", "currency country"):
        odd, ordinary = dense[dense["wrong"] == wrong], dense[dense["kind"] == ""]
        one, other = wrong.split()
        assert len(odd) > 100
        assert set(odd[one]) <= set(ordinary[one])
        assert set(odd[other]) <= set(ordinary[other])
        assert not set(zip(odd[one], odd[other], strict=True)) & set(
            zip(ordinary[one], ordinary[other], strict=True)
        )


def test_a_wrong_context_is_an_hour_at_which_the_category_never_happens(dense: pd.DataFrame) -> None:
    hour = dense["time"].dt.hour
    odd = dense["kind"] == "wrong_context"
    usual = set(zip(dense["merchant_category"][~odd], hour[~odd], strict=True))
    assert odd.sum() > 500
    assert not set(zip(dense["merchant_category"][odd], hour[odd], strict=True)) & usual


def test_a_unit_mistake_often_stays_in_the_ordinary_range(dense: pd.DataFrame) -> None:
    """Otherwise a rule on one column would do."""
    low, high = dense.loc[dense["kind"] == "", "amount"].quantile([0.001, 0.999])
    hidden = dense.loc[dense["kind"] == "unit_mistake", "amount"].between(low, high).mean()
    assert 0.2 < hidden < 0.8


def test_anomalies_and_ordinary_records_keep_the_contract(dense: pd.DataFrame) -> None:
    """What a rule on one column catches need not be learned: only repeated keys are left to the rules."""
    for column, (low, high) in BOUNDS.items():
        assert dense[column].dropna().between(low, high).all(), column
        assert column in MAY_MISS or dense[column].notna().all(), column
    assert dense["transaction_id"].str.fullmatch(r"[0-9]{8}-[0-9]{9}").all()
    assert dense["card_id"].str.fullmatch(r"c[0-9]{9}").all()
    assert set(dense["currency"]) == set(world.CURRENCIES)
    assert (dense["time"].dt.strftime("%Y%m%d") == dense["transaction_id"].str[:8]).all()
    assert set(dense.loc[dense["transaction_id"].duplicated(), "kind"]) == {"duplicated_block"}


def test_values_are_missing_for_a_reason_or_at_a_known_rate(dense: pd.DataFrame) -> None:
    online = dense["channel"] == "online"
    assert dense.loc[online, ["distance_km", "terminal_uptime_h"]].isna().all(axis=None)
    assert dense.loc[~online, "terminal_uptime_h"].notna().all()
    for column, share in (("credit_limit", 0.03), ("authorisation_ms", 0.02)):
        assert abs(dense[column].isna().mean() - share) < 5 * np.sqrt(share / len(dense)) + share * 0.06
    assert 0 < dense["seconds_since_last"].isna().mean() < 0.01


def test_seconds_since_last_are_the_seconds_since_the_cards_last_payment(dense: pd.DataFrame) -> None:
    ordinary = dense[~dense["kind"].isin(["wrong_context", "duplicated_block"])]
    ordinary = ordinary[~ordinary["card_id"].isin(dense.loc[~dense.index.isin(ordinary.index), "card_id"])]
    for _, day in ordinary.groupby(ordinary["time"].dt.date):
        waited = day.groupby("card_id")["time"].diff().dt.total_seconds()
        both = waited.notna() & day["seconds_since_last"].notna()
        assert both.sum() > 1_000
        assert np.allclose(waited[both], day.loc[both, "seconds_since_last"], atol=1.01)


def test_payments_follow_the_clock_the_week_and_the_prices(tmp_path: Path, dense: pd.DataFrame) -> None:
    """There is a rhythm to learn, and a drift to notice."""
    by_hour = dense.loc[dense["kind"] == "", "time"].dt.hour.value_counts()
    assert by_hour[12] > 10 * by_hour[3]
    saturday = dense["time"].dt.day_of_week == 5
    assert "doctor" not in set(dense.loc[saturday & (dense["kind"] == ""), "merchant_category"])
    assert "doctor" in set(dense.loc[~saturday, "merchant_category"])
    later = generate(tmp_path, SamplePlan(days=190, records_per_day=300, hostile=False))
    log = [np.log(batch(later, batch_id)["amount"].to_numpy()).mean() for batch_id in later.batch_ids]
    slope = np.polyfit(np.arange(190), log, 1)[0]  # its standard error is 0.00009
    assert 0.0005 < slope < 0.0015


def test_hostile_days_lie_in_the_last_third_and_none_is_the_last_day() -> None:
    for days in range(12, 100):
        hostile_days = list(SamplePlan(days=days).hostile_days().values())
        assert sorted(set(hostile_days)) == hostile_days
        assert len(hostile_days) == len(plan.HOSTILE)
        assert hostile_days[0] >= min(days - days // 3, days - 6)
        assert hostile_days[-1] < days - 1


def test_a_drifted_batch_has_wider_items_and_a_new_column(hostile: SampleReceipt) -> None:
    drifted = batch(hostile, hostile.hostile["schema_drift"])
    assert drifted.schema.field("items").type == pa.int64()
    assert set(drifted["loyalty_tier"].to_pylist()) == {"basic", "silver", "gold"}
    back = drifted.drop_columns("loyalty_tier").cast(world.RECORDS)
    assert back.num_rows == HOSTILE.records_per_day


def test_a_truncated_batch_cannot_be_read(hostile: SampleReceipt) -> None:
    with pytest.raises(pa.ArrowInvalid, match="magic bytes"):
        batch(hostile, hostile.hostile["truncated"])


def test_a_batch_that_lost_a_column_lacks_the_fee_and_nothing_else(hostile: SampleReceipt) -> None:
    names = batch(hostile, hostile.hostile["lost_column"]).schema.names
    assert names == [name for name in world.RECORDS.names if name != "fee"]


def test_an_empty_batch_has_columns_but_no_rows(hostile: SampleReceipt) -> None:
    empty = batch(hostile, hostile.hostile["empty"])
    assert empty.num_rows == 0
    assert empty.schema.equals(world.RECORDS)


def test_a_batch_that_cannot_be_scored_has_no_truth(hostile: SampleReceipt) -> None:
    """Recall is a share of what could have been found."""
    scored = set(pq.read_table(hostile.truth)["batch_id"].to_pylist())
    assert scored == set(hostile.batch_ids) - {hostile.hostile[name] for name in sample.NOT_SCORED}
    assert hostile.n_records == len(scored) * HOSTILE.records_per_day


def test_bad_rows_break_just_the_rule_they_are_listed_for(hostile: SampleReceipt) -> None:
    """The list is what validation must set aside, all of it and nothing else."""
    listed = pq.read_table(hostile.bad_rows).to_pandas()
    batch_id = hostile.hostile["bad_rows"]
    assert set(listed["batch_id"]) == {batch_id}
    rows = batch(hostile, batch_id).to_pandas()
    found = {
        "missing_value": rows["country"].isna(),
        "out_of_range": rows["amount"] < 0,
        "not_finite": np.isinf(rows["amount"]),
        "not_in_set": ~rows["channel"].isin(world.CHANNELS),
        "pattern": ~rows["currency"].str.fullmatch("[A-Z]{3}"),
        "duplicate_key": rows["transaction_id"].duplicated(keep=False),
    }
    assert tuple(found) == RULES
    for rule, breaks in found.items():
        keys = listed.loc[listed["rule"] == rule, "record_key"]
        assert set(keys) == set(rows.loc[breaks, "transaction_id"]), rule
        assert len(keys) == hostile.n_bad_rows[rule]
    assert 0.01 < len(listed) / len(rows) < 0.02


def test_a_bad_row_is_no_anomaly_besides_unless_its_key_is_repeated(hostile: SampleReceipt) -> None:
    listed = pq.read_table(hostile.bad_rows).to_pandas()
    truth = pq.read_table(hostile.truth).to_pandas().set_index("record_key")
    both = listed[listed["record_key"].isin(truth.index)]
    assert set(both["rule"]) <= {"duplicate_key"}
    assert set(truth.loc[both["record_key"], "kind"]) <= {"duplicated_block"}


def test_a_damaged_page_is_noticed(tmp_path: Path) -> None:
    """Pages carry checksums, so that a reader can tell a broken disk from a strange record."""
    receipt = generate(tmp_path, replace(FRIENDLY, days=1))
    path = receipt.incoming / "2026-01-01.parquet"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="CRC checksum verification failed"):
        batch(receipt, "2026-01-01")


def test_an_interrupted_run_leaves_whole_files_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever watches the folder never sees half a day."""
    receipt = generate(tmp_path, FRIENDLY)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def break_off(table: pa.Table, wrong: str) -> pa.Table:
        if len(table):
            raise KeyboardInterrupt
        return table

    monkeypatch.setattr(sample, "altered", break_off)
    with pytest.raises(KeyboardInterrupt):
        generate(tmp_path, replace(FRIENDLY, seed=8))
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before
    assert receipt.truth in before


def test_a_plan_that_makes_no_sense_is_refused_with_every_fault() -> None:
    with pytest.raises(
        ValueError, match=r"days must .*records_per_day must .*anomaly_share .*0\.5; seed .*12 days"
    ):
        SamplePlan(days=0, records_per_day=0, anomaly_share=0.5, seed=-1)


@pytest.mark.parametrize("n_records", [1, 2, 3, 7])
def test_a_day_of_a_few_records_can_be_written(tmp_path: Path, n_records: int) -> None:
    plan = SamplePlan(3, n_records, date(2028, 2, 28), anomaly_share=0.2, hostile=False)
    receipt = generate(tmp_path, plan)
    assert receipt.batch_ids == ("2028-02-28", "2028-02-29", "2028-03-01")
    assert [batch(receipt, batch_id).num_rows for batch_id in receipt.batch_ids] == [n_records] * 3


def test_importing_the_generator_loads_no_heavy_library() -> None:
    """The command line starts it for `vaewatch sample`, which should answer at once."""
    heavy = "{'torch', 'pandas', 'mlflow', 'great_expectations', 'duckdb', 'deltalake'}"
    program = f"import sys, pipeline.sample; sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_drift_changes_the_columns_it_names_on_its_day_and_nothing_else(tmp_path: Path) -> None:
    """What is told of other columns or days is a false alarm; every drifted value is within the contract."""
    plan = SamplePlan(days=36, records_per_day=400, anomaly_share=0.01, hostile=False)
    usual, drifts = (
        generate(tmp_path / "usual", plan),
        generate(tmp_path / "drifts", replace(plan, drift=True)),
    )
    assert usual.drift == {}
    assert set(drifts.drift) == set(DRIFTS)
    on = {batch_id: name for name, batch_id in drifts.drift.items()}
    for batch_id in plan.batch_id(0), *usual.batch_ids[24:]:
        one, other = batch(usual, batch_id), batch(drifts, batch_id)
        changed = {name for name in one.column_names if not one[name].equals(other[name])}
        assert changed <= set(DRIFTS.get(on.get(batch_id, ""), ()))
        assert bool(changed) == (batch_id in on)
        for name, (low, high) in BOUNDS.items():
            values = other[name].drop_null().cast(pa.float64())
            assert pc.all(pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))).as_py()


def test_drift_keeps_off_the_days_that_are_hostile_and_the_first_two_thirds() -> None:
    """A day is one thing at a time."""
    for days in (36, 48, 60, 97):
        plan = SamplePlan(days=days, drift=True)
        drifting = plan.drift_days().values()
        assert len(set(drifting)) == len(DRIFTS)
        assert not set(drifting) & set(plan.hostile_days().values())
        assert min(drifting) >= days * 2 // 3
    with pytest.raises(ValueError, match="drift needs 36 days"):
        SamplePlan(days=20, drift=True)
