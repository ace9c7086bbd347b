"""`make bench-review-loop`: what 50 verdicts do to the next nights' precision at budget, on the sample feed.

A model learns 24 days and flags the 20 highest scores of each of the next 6. A scripted reviewer who knows
the generator's truth takes the queue as it comes, the newest day first and on a day the most severe first,
and judges 50 records. That night a model is trained on all 30 days; the nights that follow are scored by it
trained without the verdicts, by the same networks with the weights that the verdicts give its terms, and by
one trained with the verdicts as the nightly run does, the confirmed anomalies left out. Two trainings never
end alike, so each of these is trained several times, and compared with the one without verdicts of the same
seed. A repeated record is set aside by the contract: its first copy is an ordinary record, whatever the truth
says of the pair.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import sql, steps
from pipeline.config import derived
from pipeline.config.dataset import Dataset
from pipeline.config.settings import Settings
from pipeline.detection.calibration import Calibration
from pipeline.detection.detector import Detector
from pipeline.installation import Installation
from pipeline.records.window import choose_window
from pipeline.sample import DUPLICATED, SamplePlan, generate
from pipeline.storage.ledger import BatchState
from pipeline.training import training_set
from tests.bench.ranking import mean_and_error
from vae_core import VAE, Known, Records, weigh

NAME, HISTORY, REVIEWED, BUDGET = "payments", 26, 6, 20
ROOT = Path(__file__).resolve().parents[2]
CONTRACT, PAGE = ROOT / "dags" / "datasets" / "payments.yaml", ROOT / "docs" / "reference" / "review.md"
BEGIN, END = "<!-- begin: written by make bench-review-loop -->", "<!-- end -->"
BATCH, KEY = "batch_id", "record_key"
COMPARED = 20_000  # training records that both models are asked about
WITHOUT, WEIGHTS, WITH = "without", "the weights alone", "trained with them"

Record = tuple[str, str]
Parts = tuple[Dataset, pa.Table, pa.Table, pa.Table]
Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Outcome:
    """Of one feed.

    Attributes:
        judged: verdicts that said anomaly, and all of them.
        hits: planted records among the BUDGET highest scores of each night, by model. (n_trainings, n_nights)
        flagged, caught: records above each night's own threshold, and the planted ones among them.
            (n_trainings, n_nights)
        perfect: the most hits that a night has. (n_nights,)
    """

    seed: int
    judged: tuple[int, int]
    hits: dict[str, Array]
    flagged: dict[str, Array]
    caught: dict[str, Array]
    perfect: Array


def main() -> None:
    """Work off the seeds and write the tables."""
    parser = argparse.ArgumentParser(prog="make bench-review-loop", description=__doc__)
    parser.add_argument(
        "--seeds", type=lambda text: [int(x) for x in text.split(",")], default=[7, 8, 9, 10, 11]
    )
    parser.add_argument(
        "--trainings",
        type=lambda text: [int(x) for x in text.split(",")],
        default=[1, 2, 3, 4],
        help="their seeds",
    )
    parser.add_argument("--labels", type=int, default=50)
    parser.add_argument("--nights", type=int, default=14)
    parser.add_argument("--quick", action="store_true", help="the weights alone, half the trainings")
    parser.add_argument("--cache", type=Path, help="folder where models stay: a run that was stopped goes on")
    parser.add_argument(
        "--page", type=Path, help=f"default: {PAGE.name}, with the default's seeds and verdicts"
    )
    chosen = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as scratch:
        for seed in chosen.seeds:
            folder = (chosen.cache or Path(scratch)) / f"s{seed}"
            outcomes.append(
                _Feed(folder, seed, chosen.nights).outcome(chosen.trainings, chosen.labels, chosen.quick)
            )
            print(_line(outcomes[-1]), flush=True)
    text = report(outcomes)
    print(text)
    names = ("seeds", "trainings", "labels", "nights", "quick")
    usual = all(getattr(chosen, name) == parser.get_default(name) for name in names)
    if page := chosen.page or (PAGE if usual else None):
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


class _Feed:
    """One seed's days, validated, and the truth about them."""

    def __init__(self, folder: Path, seed: int, n_nights: int) -> None:
        self.folder, self.seed = folder, seed
        n_days = HISTORY + REVIEWED + n_nights
        sample, done = folder / "sample", folder / "done"
        self.here = _installation(folder / "inst")
        if not done.exists():
            generate(sample, SamplePlan(days=n_days, hostile=False, seed=seed))
            incoming = self.here.dataset(NAME).incoming_path
            shutil.copytree(sample / "incoming" / NAME, incoming, dirs_exist_ok=True)
            steps.validate(self.here, NAME)
            done.touch()
        self.dataset: Dataset = self.here.dataset(NAME)
        current = self.here.ledger.current(NAME)
        self.batches: list[BatchState] = [current[batch_id] for batch_id in sorted(current)][:n_days]
        self.days = [batch.batch_id for batch in self.batches]
        rows = pq.read_table(sample / "truth" / f"{NAME}.parquet").to_pylist()
        self.truth = {(row[BATCH], row[KEY]) for row in rows if row["kind"] != DUPLICATED}

    def outcome(self, seeds: Sequence[int], n_labels: int, quick: bool) -> Outcome:
        odd, normal = self.verdicts(n_labels)
        nights = self.days[HISTORY + REVIEWED :]
        trained = [self.models(seed, odd, normal, quick) for seed in seeds]
        found = {
            name: np.array([[self.night(models[name], day) for day in nights] for models in trained])
            for name in trained[0]
        }
        hits, flagged, caught = ({name: one[..., i] for name, one in found.items()} for i in range(3))
        planted = np.array([sum(record[0] == day for record in self.truth) for day in nights])
        self.here.close()
        judged = len(odd), len(odd) + len(normal)
        return Outcome(self.seed, judged, hits, flagged, caught, np.minimum(planted, BUDGET))

    def verdicts(self, n_labels: int) -> tuple[list[Record], list[Record]]:
        """What the reviewer says is an anomaly, and what is none, of the queue of the feed's own model."""
        known, _ = self.fitted("flagging", *self.window(self.dataset, (), ()))
        reviewed = reversed(self.days[HISTORY : HISTORY + REVIEWED])
        queue = [record for day in reviewed for record in _highest(*self.scored(known, day))][:n_labels]
        odd, normal = (sorted(r for r in queue if (r in self.truth) is wanted) for wanted in (True, False))
        return odd, normal

    def models(
        self, seed: int, odd: Sequence[Record], normal: Sequence[Record], quick: bool
    ) -> dict[str, Detector]:
        """What that night's training comes to, by what it makes of the verdicts."""
        train = self.dataset.train.model_copy(update={"seed": seed})
        dataset = self.dataset.model_copy(update={"train": train})
        per_day, parts = self.window(dataset, (), ())
        known, without = self.fitted(f"t{seed}-without", per_day, parts)
        weigh(known.vae, Known(*(self.records(known, chosen) for chosen in (odd, normal))))
        models = {WITHOUT: without, WEIGHTS: _weighed(without, known, parts)}
        if not quick:
            name = f"t{seed}-with{len(odd) + len(normal)}"
            models[WITH] = self.fitted(name, *self.window(dataset, odd, normal))[1]
        return models

    def window(
        self, dataset: Dataset, odd: Sequence[Record], normal: Sequence[Record]
    ) -> tuple[float, Parts]:
        """Records a day, and what there is to learn from, as the nightly run reads it."""
        window = choose_window(dataset, self.batches[: HISTORY + REVIEWED], odd, normal)
        tables, scratch = self.here.tables(dataset), self.folder / "scratch"
        records = training_set.read_window(dataset, window, tables, scratch=scratch, threads=1)
        parts = training_set.split_calibration(dataset, records.table)
        return window.records_per_day, (dataset, *parts, records.anomalies)

    def fitted(self, name: str, records_per_day: float, parts: Parts) -> tuple[Detector, Detector]:
        """The model that is calibrated and the one that serves."""
        folder = self.folder / name
        if not (folder / "known").exists():
            Detector.train(*parts, records_per_day=records_per_day).save(folder / "known")
        known = Detector.load(folder / "known")
        if not (folder / "refit").exists():
            known.refit(*parts).save(folder / "refit")
        return known, Detector.load(folder / "refit")

    @cache  # noqa: B019  # a feed lives as long as its seed is worked off
    def day(self, day: str) -> tuple[list[Record], pa.Table]:
        """Its accepted records, their names and what a model reads."""
        files = self.here.tables(self.dataset).files("records", [day], flag=False)
        names = ", ".join(map(sql.name, self.dataset.columns_with("numeric", "categorical", "context")))
        query = f"SELECT {derived.KEY} AS {KEY}, {names} FROM ({derived.accepted(self.dataset, files)}) ORDER BY 1"
        with sql.database(self.folder / "scratch", threads=1, memory_gb=2.0) as connection:
            table: pa.Table = connection.sql(query).to_arrow_table()
        return [(day, key) for key in table[KEY].to_pylist()], table.drop_columns([KEY])

    def records(self, model: Detector, chosen: Sequence[Record]) -> Records | None:
        """Some records as a model takes them."""
        days = [self.day(day) for day in sorted({day for day, _ in chosen})]
        parts = [table.filter(pa.array([r in chosen for r in names])) for names, table in days]
        return model.features.records(pa.concat_tables(parts)) if parts else None

    def scored(self, model: Detector, day: str) -> tuple[list[Record], Array]:
        records, table = self.day(day)
        return records, _scores(model, table)

    def night(self, model: Detector, day: str) -> tuple[int, int, int]:
        """Hits at the budget, records above the threshold, hits among those."""
        records, scores = self.scored(model, day)
        flags, _ = model.calibration.flags(scores, self.dataset.flag, model.records_per_day)
        above = [record for record, flag in zip(records, flags, strict=True) if flag]
        at_budget = _highest(records, scores)
        return len(self.truth.intersection(at_budget)), len(above), len(self.truth.intersection(above))


def _highest(records: Sequence[Record], scores: Array) -> list[Record]:
    return [records[i] for i in np.argsort(-scores, kind="stable")[:BUDGET]]


def _installation(folder: Path) -> Installation:
    (folder / "datasets").mkdir(parents=True, exist_ok=True)
    text = CONTRACT.read_text(encoding="utf-8").replace("../../var/incoming", "../incoming")
    (folder / "datasets" / f"{NAME}.yaml").write_text(text.replace("settle_seconds: 3", "settle_seconds: 0"))
    settings = Settings(home=folder / "home", datasets=folder / "datasets", ledger_url=None)  # type: ignore[call-arg]
    return Installation(settings)


def _weighed(model: Detector, known: Detector, parts: Parts) -> Detector:
    """The model with the other's weights of the score's terms, calibrated as `Detector.train` and `refit`
    do.
    """
    state = model.vae.state_dict() | {"weights": known.vae.weights}
    weighed = replace(model, vae=VAE.from_config(model.vae.config(), state))
    _, learned, calibrating, _ = parts
    known = replace(known)  # its scores are asked for anew
    calibration = Calibration.fit(_scores(known, calibrating))
    both = learned.slice(max(0, learned.num_rows - COMPARED))
    return replace(
        weighed, calibration=calibration.carried_over(_scores(known, both), _scores(weighed, both))
    )


def _scores(model: Detector, table: pa.Table) -> Array:
    return np.asarray(model.score_table(table)["anomaly_score"].to_numpy())


def _line(one: Outcome) -> str:
    hits = ", ".join(f"{name} {values.sum(1).tolist()}" for name, values in one.hits.items())
    return (
        f"seed {one.seed}: {one.judged[0]} of {one.judged[1]} anomalies; hits {hits} of {one.perfect.sum()}"
    )


def report(outcomes: Sequence[Outcome]) -> str:
    """A row per feed; differences are paired, training by training, and averaged in each feed."""
    n_nights, names = len(outcomes[0].perfect), list(outcomes[0].hits)
    n_trainings, places = len(outcomes[0].hits[WITHOUT]), n_nights * BUDGET
    lines = [
        f"Planted anomalies among the {BUDGET} highest scores of each of {n_nights} nights, {places} places a feed, after "
        f"{outcomes[0].judged[1]} verdicts; means of {n_trainings} trainings:",
        "",
        f"| feed | said to be anomalies | without verdicts | {' | '.join(names[1:])} | gained, training by training | perfect order |",
        "|---|---|" + "---|" * (len(names) + 2),
    ]
    for one in outcomes:
        means = [f"{one.hits[name].sum(1).mean():.1f}" for name in names]
        gains = (one.hits[names[-1]] - one.hits[WITHOUT]).sum(1)
        row = [one.seed, one.judged[0], *means, ", ".join(f"{gain:+d}" for gain in gains), one.perfect.sum()]
        lines.append("| " + " | ".join(map(str, row)) + " |")
    share = {name: np.array([one.hits[name].sum(1).mean() / places for one in outcomes]) for name in names}
    perfect = np.mean([one.perfect.sum() / places for one in outcomes])
    said = [f"Precision at budget {share[WITHOUT].mean():.3f} without, at most {perfect:.3f}."]
    for name in names[1:]:
        mean, error = mean_and_error(share[name] - share[WITHOUT])
        said.append(f"{name.capitalize()}: {share[name].mean():.3f}, **{mean:+.3f} ± {error:.3f}**.")
    said.append(f"Standard errors of the paired difference, over {len(outcomes)} feeds.")
    if n_trainings > 1:
        within = np.mean([(one.hits[WITHOUT].sum(1) / places).var(ddof=1) for one in outcomes])
        said.append(
            f"Another seed of the training alone moves precision by {within**0.5:.3f} (standard deviation)."
        )
    own = [_own(name, outcomes) for name in names]
    return "\n".join([*lines, "", " ".join(said), f"Above each model's own threshold: {'; '.join(own)}."])


def _own(name: str, outcomes: Sequence[Outcome]) -> str:
    flagged, caught = (
        sum(int(part[name].sum()) for part in parts)
        for parts in ([one.flagged for one in outcomes], [one.caught for one in outcomes])
    )
    nights = sum(one.flagged[name].size for one in outcomes)
    return f"{name} {flagged / nights:.1f} a night, precision {caught / max(1, flagged):.3f}"


if __name__ == "__main__":
    main()
