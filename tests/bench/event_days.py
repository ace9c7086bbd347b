"""What a threshold makes of events among the days that calibrate it: `make bench-event-days`.

Water, as in water.py: trained every week on the trailing 30 days, of which the newest six calibrate, and the
seven days after scored. The threshold for a review budget is taken twice from the same scores: from all of
the records alike, and with no day counted as more than twice the others (calibration.py). Printed for both:
flags on the days scored, and, where there are labels, how many records of an event are found and how many
flags a day are of none.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.config.dataset import Flagging
from pipeline.detection.calibration import Calibration
from pipeline.detection.detector import Detector
from pipeline.records.window import DAY
from pipeline.training.training_set import split_calibration
from tests.bench import water

PER_DAY, WEEK = 1440, 7


@dataclass(frozen=True)
class Week:
    """Of one training: the calibration of either kind, and the scores of each of the days that follow."""

    alike: Calibration
    by_day: Calibration
    scores: list[Any]
    events: list[Any]


def trained(window: list[pa.Table], days: list[pa.Table], labels: pa.Array, seed: int) -> Week:
    """Train as the product does, and score the days after."""
    config = water.dataset(seed, look_back=True)
    numbered = [day.append_column(DAY, pa.array(np.full(len(day), i))) for i, day in enumerate(window)]
    learned, calibrating = split_calibration(config, pa.concat_tables(numbered))
    known = Detector.train(config, learned, calibrating, records_per_day=PER_DAY)
    serving = known.refit(config, learned, calibrating)
    alike = Calibration.fit(_scores(known, calibrating))
    return Week(
        alike.carried_over(_scores(known, learned), _scores(serving, learned)),
        serving.calibration,
        [_scores(serving, day) for day in days],
        [pc.is_in(day["record_id"], value_set=labels).to_numpy() for day in days],
    )


def _scores(detector: Detector, table: pa.Table) -> Any:
    return detector.score_table(table)["anomaly_score"].to_numpy()


def line(weeks: list[Week], calibrations: list[Calibration], budget: float) -> list[str]:
    """What a calibration for each week gives."""
    by_day, hits, n_events = [], 0, 0
    for week, calibration in zip(weeks, calibrations, strict=True):
        threshold = calibration.threshold(Flagging(review_budget=budget), PER_DAY).value
        for scores, events in zip(week.scores, week.events, strict=True):
            by_day.append(int((scores > threshold).sum()))
            hits += int((events & (scores > threshold)).sum())
            n_events += int(events.sum())
    low, middle, high = np.quantile(by_day, [0.25, 0.5, 0.75])
    return [
        f"{middle:.0f} ({low:.0f} to {high:.0f})",
        f"{np.mean(np.equal(by_day, 0)):.0%}",
        f"{hits / n_events:.0%}",
        f"{hits / max(1, sum(by_day)):.0%}",
        f"{(sum(by_day) - hits) / len(by_day):.0f}",
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    table = pq.read_table(water.DATA / "labels_before_2016-11-08.parquet")
    labels = table.filter(table["event"])["record_id"].combine_chunks()
    days = water.read_days(look_back=True)
    console = Console(width=None if sys.stdout.isatty() else 130)
    weeks = []
    for first in range(water.WINDOW, len(days) - WEEK + 1, WEEK):
        window, following = days[first - water.WINDOW : first], days[first : first + WEEK]
        weeks.append(trained(window, following, labels, chosen.seed))
        console.print(f"  trained before day {first}")
    heads = "flags on the median day (quartiles)", "days without", "events found", "precision", "others a day"
    result = Table("budget a day", "calibration days count", *heads, box=None)
    for budget in (20.0, 5.0):
        for words, calibrations in (
            ("as they are", [week.alike for week in weeks]),
            ("twice the others at most", [week.by_day for week in weeks]),
        ):
            result.add_row(f"{budget:g}", words, *line(weeks, calibrations, budget))
    console.print(result)


if __name__ == "__main__":
    main()
