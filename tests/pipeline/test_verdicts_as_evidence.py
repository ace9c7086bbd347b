"""From people's verdicts to the numbers that a challenger is judged by, with real parts between them.

A column has three values: usual, odd (one record in ten) and rare (one in a hundred). A version of one column
flags what is rare there, takes what is odd for unusual, and knows nothing of the other column. The challenger
reads `country`, the champion `shop`: what each flags can be counted from the values alone.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import count
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pipeline.config.dataset import Dataset
from pipeline.config.gates import Gates
from pipeline.config.settings import Settings
from pipeline.detection.detector import Detector
from pipeline.evaluation import Evidence, Share, decide
from pipeline.evaluation.contenders import Contender
from pipeline.evaluation.injection import injected
from pipeline.evaluation.measurement import measure
from pipeline.installation import Installation
from pipeline.records import holdout
from pipeline.records.holdout import HeldOut
from pipeline.records.verdicts import OPINIONS
from pipeline.review import judging
from pipeline.steps.comparing import window_of
from pipeline.storage.ledger import BatchState

from .review_data import put, row

pytestmark = pytest.mark.filterwarnings("ignore::vae_core.DataWarning", "ignore::vae_core.TrainingWarning")
HELD = 0.5
FILE = """\
dataset: payments
incoming: {path: ../incoming}
columns:
  country: {type: string, role: categorical}
  shop: {type: string, role: categorical}
train: {window_days: 30, min_records: 50}
flag: {error_rate: 0.05}
"""
# country, shop, what ann says, what ben says; records of the holdout, and records that versions may learn
WINDOW = [
    ("rare", "rare", "anomaly", "", 3, 2),
    ("rare", "usual", "anomaly", "", 4, 1),
    ("rare", "usual", "data_error", "data_error", 1, 0),
    ("usual", "rare", "anomaly", "", 2, 5),  # the challenger loses these
    ("usual", "rare", "data_error", "", 1, 0),  # and this
    ("odd", "rare", "anomaly", "", 1, 1),  # these only slipped below its threshold
    ("usual", "usual", "anomaly", "", 2, 0),
    ("rare", "rare", "normal", "", 5, 3),
    ("rare", "usual", "expected_change", "", 1, 2),
    ("usual", "rare", "normal", "normal", 3, 4),
    ("usual", "usual", "normal", "", 6, 1),
    ("rare", "rare", "unsure", "", 2, 1),
    ("usual", "rare", "anomaly", "normal", 2, 2),  # nobody is outvoted: neither
    ("rare", "rare", "", "", 1, 0),
    ("usual", "odd", "", "", 10, 10),
    ("odd", "usual", "", "", 10, 10),
    ("usual", "usual", "", "", 200, 200),
]
BEFORE_THE_WINDOW = [("usual", "rare", "anomaly", "", 9, 9)]
NEWEST, OLD = "2026-01-30", "2025-11-30"


@dataclass(frozen=True)
class Record:
    key: str
    values: dict[str, str]
    said: dict[str, str]

    def row(self, batch_id: str) -> dict[str, Any]:
        """As it stands in the queue."""
        return row(self.key, batch_id, record=self.values)


def records(
    keys: Iterator[str], country: str, shop: str, ann: str, ben: str, n_held: int, n_learned: int
) -> Iterator[Record]:
    """Yield so many records on either side of the holdout's border, which the key alone decides."""
    left = {True: n_held, False: n_learned}
    while any(left.values()):
        key = next(keys)
        is_held = int(hashlib.md5(f"holdout {key}".encode()).hexdigest()[:8], 16) < HELD * 2**32  # noqa: S324
        if left[is_held]:
            left[is_held] -= 1
            said = {by: opinion for by, opinion in (("ann", ann), ("ben", ben)) if opinion}
            yield Record(key, {"country": country, "shop": shop}, said)


KEYS = (f"payment {i}" for i in count())
STORED = {
    batch_id: [one for of in designed for one in records(KEYS, *of)]
    for batch_id, designed in ((NEWEST, WINDOW), (OLD, BEFORE_THE_WINDOW))
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """Two batches are stored and in the queue, and people have judged some of their records."""
    root = tmp_path_factory.mktemp("verdicts")
    (root / "datasets").mkdir()
    (root / "datasets" / "payments.yaml").write_text(FILE)
    opened = Installation(Settings(home=root / "home", datasets=root / "datasets"))
    for batch_id, found in STORED.items():
        store(opened, batch_id, found)
    yield opened
    opened.close()


def store(here: Installation, batch_id: str, found: list[Record]) -> None:
    table = pa.table({
        "batch_id": [batch_id] * len(found),
        "set_aside": [False] * len(found),
        "row_number": list(range(len(found))),
        "record_key": [one.key for one in found],
        "reasons": pa.nulls(len(found), pa.list_(pa.string())),
        "record": [one.values for one in found],
    })
    here.tables(here.dataset("payments")).replace("records", batch_id, table.to_reader(), note={})
    at = datetime.fromisoformat(batch_id).replace(tzinfo=UTC)
    here.ledger.record_validation(
        BatchState(
            "payments", batch_id, 1, "accepted", "", "f", "s", "c", [], [], {}, len(found), len(found), at, at
        )
    )
    queued = {one.row(batch_id)["anomaly_id"]: one for one in found if one.said}
    put(here.ledger, [one.row(batch_id) for one in queued.values()])
    for by in ("ann", "ben"):
        for opinion in OPINIONS:
            if ids := [anomaly_id for anomaly_id, one in queued.items() if one.said.get(by) == opinion]:
                judging.give(here.ledger, ids, opinion, by=by)


@pytest.fixture(scope="module")
def dataset(here: Installation) -> Dataset:
    return here.dataset("payments")


@pytest.fixture(scope="module")
def held(here: Installation, dataset: Dataset, tmp_path_factory: pytest.TempPathFactory) -> HeldOut:
    scratch, tables = tmp_path_factory.mktemp("scratch"), here.tables(dataset)
    return holdout.read(dataset, window_of(here, dataset), HELD, tables, scratch=scratch, threads=1)


@pytest.fixture(scope="module")
def evidence(dataset: Dataset, held: HeldOut) -> Evidence:
    """Of a challenger that reads `country` beside a champion that reads `shop`."""
    two = (Contender(version_of(name), n, 2000) for n, name in ((2, "country"), (1, "shop")))
    return measure(dataset, held, *two, batches=(NEWEST, NEWEST), at=datetime.now(UTC))


def version_of(name: str) -> Detector:
    """Train on one column: a tenth is odd, a hundredth rare, as among the records that calibrate."""
    alone = Dataset.model_validate({
        "dataset": "payments",
        "incoming": {"path": "incoming"},
        "columns": {name: {"type": "string", "role": "categorical"}},
        "train": {"recipe": {"steps": 60, "n_members": 2}},
    })
    values = np.repeat(["usual", "odd", "rare"], [890, 100, 10])
    parts = [pa.table({name: np.random.default_rng(i).permutation(values)}) for i in (1, 2)]
    return Detector.train(alone, *parts, records_per_day=1000, device="cpu")


def test_verdicts_on_the_holdout_become_precision_and_the_share_of_anomalies_that_is_found(
    evidence: Evidence,
) -> None:
    """On both sides by what a version flags now, whoever flagged a record when it was judged. Two opinions
    for and two against; who is unsure, and records on which people differ, are neither.
    """
    one, other = evidence.challenger, evidence.champion
    assert other
    n_anomalies = 3 + 4 + 1 + 2 + 1 + 1 + 2
    assert one.precision == Share(3 + 4 + 1, (3 + 4 + 1) + (5 + 1))
    assert one.confirmed == Share(3 + 4 + 1, n_anomalies)
    assert other.precision == Share(3 + 2 + 1 + 1, (3 + 2 + 1 + 1) + (5 + 3))
    assert other.confirmed == Share(3 + 2 + 1 + 1, n_anomalies)


def test_an_anomaly_is_lost_where_the_champion_flags_what_the_challenger_finds_ordinary(
    evidence: Evidence,
) -> None:
    """Held out or not, by its name; not one that only slipped below the threshold."""
    unlike = {"country": "usual", "shop": "rare"}
    agreed = ({"ann": "anomaly"}, {"ann": "data_error"})
    lost = [one for one in STORED[NEWEST] if one.values == unlike and one.said in agreed]
    assert len(lost) == (2 + 5) + 1
    assert sorted(evidence.lost) == sorted(one.row(NEWEST)["anomaly_id"] for one in lost)


def test_churn_counts_the_records_that_one_version_alone_flags_on_either_side(evidence: Evidence) -> None:
    """Among all records of the newest days, judged or not, held out or not."""
    mine, theirs = ([one.values[of] == "rare" for one in STORED[NEWEST]] for of in ("country", "shop"))
    both = sum(one and other for one, other in zip(mine, theirs, strict=True))
    assert (sum(mine), sum(theirs), both) == (17 + 9, 17 + 21, 17)
    churn = evidence.churn
    assert churn
    assert (churn.either, churn.differ) == (17 + 9 + 21, 9 + 21)
    assert Counter(one["by"] for one in churn.examples) == {"challenger": 9, "champion": 21}


def test_recall_is_of_anomalies_made_from_holdout_records_that_nobody_found_to_be_one(
    dataset: Dataset, held: HeldOut, evidence: Evidence
) -> None:
    """An injected anomaly is found where its copy is rare in the column that the version reads."""
    made = injected(dataset, held.records)
    assert evidence.n_holdout == held.records.num_rows == (5 + 1 + 3 + 6) + (2 + 2 + 1) + 220
    assert evidence.champion
    for version, column in ((evidence.challenger, "country"), (evidence.champion, "shop")):
        shares = {
            kind: np.mean([v == "rare" for v in copies[column].to_pylist()]) for kind, copies in made.items()
        }
        assert version.recall_of == pytest.approx(shares)
        assert version.recall == pytest.approx(np.mean(list(shares.values())))
        assert version.recall
        assert version.recall < 1


def test_a_gate_that_waits_for_verdicts_says_what_it_counts_and_how_many_more_are_needed(
    evidence: Evidence,
) -> None:
    """Twenty held-out ones: of each version's flags for one gate, of the anomalies for the other."""
    of_flags, of_anomalies = (
        f"the holdout has 14 of the {what}, and 6 more are needed: about 12 more such verdicts, as it has 50 % of all records"
        for what in ("judged records that version 2 flags", "confirmed anomalies")
    )
    said = {one.gate: (one.verdict, one.reason) for one in decide(evidence, Gates()).findings}
    assert said["precision"] == ("not judged", of_flags)
    assert said["confirmed"] == ("not judged", of_anomalies)
    assert evidence.champion
    fewer = replace(evidence, champion=replace(evidence.champion, precision=Share(1, 1)))
    (found,) = (one for one in decide(fewer, Gates()).findings if one.gate == "precision")
    assert found.reason.startswith(
        "the holdout has 1 of the judged records that version 1 flags, and 19 more"
    )
