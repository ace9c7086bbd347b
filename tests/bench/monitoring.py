"""False alarms over a hundred clean days of the sample feed, and what is told of the drift that it plants:
make bench-monitoring.

First of the columns' drift alone, which needs no trained model: features and reference of the first thirty
days, each later day held against them and against its past. Then of all that a page tells, as the product
runs: contract, one model of the first thirty days, every later day checked, scored and watched.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from scipy.stats import beta

from pipeline import steps
from pipeline.config.files import load_dataset
from pipeline.config.settings import Settings
from pipeline.detection.features import Features
from pipeline.detection.measures import Measures, column_drift
from pipeline.detection.reference import Reference
from pipeline.installation import Installation
from pipeline.monitoring import store
from pipeline.monitoring.findings import Finding
from pipeline.monitoring.history import Past
from pipeline.monitoring.judgement import judge
from pipeline.sample import SamplePlan, generate

REPOSITORY = Path(__file__).resolve().parents[2]
DATASET = load_dataset(REPOSITORY / "dags" / "datasets" / "payments.yaml")
WINDOW = 30
NOT_OF_THE_DAY = {"champion", "backlog"}


def days(plan: SamplePlan, folder: Path) -> Iterator[tuple[date, tuple[Finding, ...]]]:
    """Each day after the window, and what is told of it."""
    incoming = generate(folder, plan).incoming
    learned = pa.concat_tables([_records(incoming, plan, day) for day in range(WINDOW)])
    features = Features.fit(DATASET, learned)
    reference = Reference.fit(features, learned)
    past: list[Past] = []
    for day in range(plan.days):
        records, on = _records(incoming, plan, day), plan.start + timedelta(days=day)
        n = records.num_rows
        now = Measures(n, n, 0, 0.0, None, None, n, 0, columns=column_drift(reference, features, records))
        found = judge(now, past, on, dataset=DATASET, batch_id=plan.batch_id(day))
        past.append(Past(plan.batch_id(day), on, now, found))
        if day >= WINDOW:
            yield on, found


def pages(plan: SamplePlan, folder: Path) -> Iterator[tuple[date, tuple[Finding, ...]]]:
    """Each day after the window, and the warnings and alarms of its page, but for those that one model of a
    hundred days and nobody's verdicts explain: the champion's age and the backlog.
    """
    landed, incoming = generate(folder / "sample", plan).incoming, folder / "incoming"
    (folder / "datasets").mkdir()
    settings = yaml.safe_load(
        (REPOSITORY / "dags" / "datasets" / "payments.yaml").read_text(encoding="utf-8")
    )
    settings["incoming"] = {"path": str(incoming), "settle_seconds": 0}
    (folder / "datasets" / "payments.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    here = Installation(Settings(home=folder / "home", datasets=folder / "datasets"))
    files = sorted(landed.glob("*.parquet"))
    for some in (files[:WINDOW], files[WINDOW:]):
        incoming.mkdir(exist_ok=True)
        for file in some:
            file.rename(incoming / file.name)
        steps.validate(here, "payments")
        if some[0] == files[0]:
            steps.train(here, "payments")
            steps.evaluate(here, "payments")
    steps.score(here, "payments", f"{files[WINDOW].stem}..{files[-1].stem}")
    for one in store.newest(here.ledger, "payments", plan.days - WINDOW):
        serious = (f for f in one.findings if f.severity != "notice" and f.key not in NOT_OF_THE_DAY)
        yield one.day, tuple(serious)
    here.close()


def _records(incoming: Path, plan: SamplePlan, day: int) -> pa.Table:
    """A day's modelled columns as training reads them."""
    columns = DATASET.columns_with("numeric", "categorical", "context")
    table = pq.read_table(incoming / f"{plan.batch_id(day)}.parquet", columns=columns)
    types = {"fee": pa.float64(), "merchant_category": pa.string()}
    return table.cast(pa.schema([pa.field(f.name, types.get(f.name, f.type)) for f in table.schema]))


def main() -> None:
    """Print both tables."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    n_seeds = arguments.parse_args().seeds
    print("records a day   clean days   days with a false alarm   rate, upper end of its exact 95 % interval")
    for size in (300, 1_000, 5_000, 20_000):
        n, false = 0, []
        for seed in range(n_seeds):
            plan = SamplePlan(days=WINDOW + 100, records_per_day=size, hostile=False, seed=seed)
            with TemporaryDirectory() as folder:
                for on, found in days(plan, Path(folder)):
                    n += 1
                    false += [(seed, on, finding.key) for finding in found[:1]]
        upper = float(beta.ppf(0.975, len(false) + 1, n - len(false)))
        print(
            f"{size:13d}   {n:10d}   {len(false):23d}   {len(false) / n:.3f}, {upper:.3f}", *false, flush=True
        )
    planted(days, 5_000)
    print("as the product runs, warnings and alarms of a page:")
    n, false = 0, []
    with TemporaryDirectory() as folder:
        for on, found in pages(
            SamplePlan(days=WINDOW + 100, records_per_day=1_000, hostile=False), Path(folder)
        ):
            n += 1
            false += [(on, finding.key) for finding in found[:1]]
    upper = float(beta.ppf(0.975, len(false) + 1, n - len(false)))
    print(f"{1_000:13d}   {n:10d}   {len(false):23d}   {len(false) / n:.3f}, {upper:.3f}", *false, flush=True)
    planted(pages, 5_000)


def planted(
    told: Callable[[SamplePlan, Path], Iterator[tuple[date, tuple[Finding, ...]]]], size: int
) -> None:
    """Print what is told of a feed that drifts."""
    plan = SamplePlan(days=60, records_per_day=size, hostile=False, drift=True)
    print("planted:", {name: plan.batch_id(day) for name, day in plan.drift_days().items()})
    with TemporaryDirectory() as folder:
        for on, found in told(plan, Path(folder)):
            for finding in found:
                print(f"{on}  {finding.severity:8s} {finding.what}", flush=True)


if __name__ == "__main__":
    main()
