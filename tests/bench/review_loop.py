"""`make bench-review-loop`: what 50 verdicts do to the next night's precision at budget, on the sample feed.

A scripted reviewer who knows the generator's truth judges the 50 most severe open records of a week. The night after,
two models are trained on the same window: one that knows the verdicts and one that does not. Both score the following
week, each batch under its own threshold (`flag.review_budget`), and at one budget: the 20 highest scores a day.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from pipeline import steps, views
from pipeline.installation import Installation
from pipeline.review import judging, queue
from pipeline.review.estimates import wilson
from pipeline.review.filters import Filters
from pipeline.review.statistics import share_text
from pipeline.sample import SamplePlan, generate
from pipeline.settings import Settings

NAME, HISTORY, REVIEWED, FOLLOWING, BUDGET = "payments", 25, 7, 7, 20
CONTRACT = Path(__file__).resolve().parents[2] / "dags" / "datasets" / "payments.yaml"


def main() -> None:
    """Run the two nights for each seed and print what came of them."""
    parser = argparse.ArgumentParser(prog="make bench-review-loop", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--labels", type=int, default=50)
    chosen = parser.parse_args()
    for seed in range(chosen.seeds):
        with tempfile.TemporaryDirectory() as folder:
            _one(Path(folder), 7 + seed, chosen.labels)


def _one(folder: Path, seed: int, n_labels: int) -> None:
    plan = SamplePlan(days=HISTORY + REVIEWED + FOLLOWING, hostile=False, seed=seed)
    generate(folder / "sample", plan)
    days = sorted(path.name for path in (folder / "sample" / "incoming" / NAME).glob("*.parquet"))
    truth = {
        (row["batch_id"], row["record_key"])
        for row in pq.read_table(folder / "sample" / "truth" / f"{NAME}.parquet").to_pylist()
    }
    here = _installation(folder / "with")
    _land(folder, days[:HISTORY], here)
    steps.validate(NAME, installation=here)
    steps.train(NAME, installation=here)
    _land(folder, days[HISTORY : HISTORY + REVIEWED], here)
    steps.validate(NAME, installation=here)
    steps.score(NAME, installation=here)
    week = [Path(name).stem for name in days[HISTORY : HISTORY + REVIEWED]]
    here.close()
    shutil.copytree(folder / "with", folder / "without")  # its models stay where the first registered them
    found = {}
    for kind in ("without", "with"):
        there = _installation(folder / kind, tracking=folder / "with" / "home" / "mlflow.db")
        n = _judge(there, week, truth, n_labels) if kind == "with" else 0
        version = steps.train(NAME, installation=there).model_version
        steps.promote(NAME, version, by="bench", reason=kind, installation=there)
        _land(folder, days[HISTORY + REVIEWED :], there)
        steps.validate(NAME, installation=there)
        following = [Path(name).stem for name in days[HISTORY + REVIEWED :]]
        steps.score(NAME, f"{following[0]}..{following[-1]}", installation=there)
        found[kind] = _measure(there, following, truth)
        print(f"seed {seed}, {kind} {n} verdicts: {found[kind]}", flush=True)
        there.close()


def _installation(folder: Path, tracking: Path | None = None) -> Installation:
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    text = CONTRACT.read_text(encoding="utf-8").replace("../../var/incoming", "../incoming")
    (folder / "datasets" / f"{NAME}.yaml").write_text(text.replace("settle_seconds: 3", "settle_seconds: 0"))
    mlflow = tracking or folder / "home" / "mlflow.db"
    settings = Settings(
        home=folder / "home",
        datasets=folder / "datasets",
        tracking_uri=f"sqlite:///{mlflow}",
        ledger_url=None,
    )  # type: ignore[call-arg]
    return Installation(settings)


def _land(folder: Path, names: Sequence[str], here: Installation) -> None:
    incoming = here.dataset(NAME).incoming_path
    incoming.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(folder / "sample" / "incoming" / NAME / name, incoming / name)


def _judge(here: Installation, week: Sequence[str], truth: set[tuple[str, str]], n: int) -> int:
    """The most severe open records of the week, judged by the truth."""
    rows = queue.page(here.ledger, Filters(since=week[0], until=week[-1], kind="flagged"), limit=1000).rows
    worst = sorted(rows, key=lambda row: -row["severity"])[:n]
    for row in worst:
        odd = (row["batch_id"], row["record_key"]) in truth
        judging.give(here.ledger, [row["anomaly_id"]], "anomaly" if odd else "normal", by="script")
    return len(worst)


def _measure(here: Installation, days: Sequence[str], truth: set[tuple[str, str]]) -> str:
    flags = [(r["batch_id"], r["record_key"]) for r in views.flagged(here, NAME) if r["batch_id"] in days]
    planted = {record for record in truth if record[0] in days}
    own = wilson(sum(flag in planted for flag in flags), len(flags))
    best: list[tuple[str, str]] = []
    tables = here.tables(here.dataset(NAME))
    for day in days:
        rows: list[dict[str, Any]] = tables.read(
            "scores", batch_id=day, columns=["batch_id", "record_key", "anomaly_score"]
        ).to_pylist()
        rows.sort(key=lambda row: -row["anomaly_score"])
        best += [(row["batch_id"], row["record_key"]) for row in rows[:BUDGET]]
    at_budget = wilson(sum(record in planted for record in best), len(best))
    recall = wilson(sum(record in planted for record in best), len(planted))
    return f"precision of flags {share_text(own)}; of the {BUDGET} a day {share_text(at_budget)}; recall {share_text(recall)}"


if __name__ == "__main__":
    main()
