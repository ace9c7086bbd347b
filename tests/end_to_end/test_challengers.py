"""Challengers that are worse for a reason, and one that is better, through all steps: trained, registered,
judged, promoted, taken back, made again.

They run on the sample feed and on a week of a waterworks' sensors. A challenger's records are changed as its
training reads them: the holdout, the champion and the rest of the installation are as on any night.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.errors import NotReady
from pipeline.steps.receipts import Receipt
from pipeline.training import training_set

from .conftest import Place

pytestmark = [
    pytest.mark.timeout(3600),  # beside other work
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings("ignore::vae_core.DataWarning"),
]
SLOW = pytest.mark.slow  # six trainings a feed: four minutes each
DATA = (
    Path(os.environ.get("VAEWATCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "water" / "batches"
)
WATER_DAYS = slice(0, 8)
BRIEF, GOOD = (
    "{steps: 30, n_members: 2}",
    {"payments": "{n_latents: 10, n_members: 2}", "water": "{n_members: 2}"},
)
QUICKLY = "{steps: 200, n_members: 2, critic_steps: 0}"
ANN = {"by": "ann", "reason": "a test"}


def shuffled(table: pa.Table) -> pa.Table:
    """Every column in an order of its own: the values stay, what goes together is gone."""
    random = np.random.default_rng(1)
    return pa.table({n: table[n].take(random.permutation(table.num_rows)) for n in table.column_names})


def contaminated(table: pa.Table) -> pa.Table:
    """Three records in ten are of values that do not go together."""
    odd, other = pa.array(np.random.default_rng(2).random(table.num_rows) < 0.3), shuffled(table)
    columns = {n: (other[n].combine_chunks(), table[n].combine_chunks()) for n in table.column_names}
    return pa.table({n: pc.if_else(odd, *both) for n, both in columns.items()})


def few(table: pa.Table) -> pa.Table:
    """The newest hundred or so: as many as can be calibrated on."""
    return table.slice(table.num_rows - 110)


def ten(table: pa.Table) -> pa.Table:
    return table.slice(table.num_rows - 10)


@pytest.fixture(scope="module", params=["payments", "water"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Every batch is checked, and a version serves that was trained too briefly."""
    root = tmp_path_factory.mktemp("challengers")
    if request.param == "water":
        place = water(root)
    else:
        landed, _ = request.getfixturevalue("landed_once")
        place = landed.copy(root / "payments")
        place.edit("recipe: {steps: 60, n_members: 2}", f"recipe: {BRIEF}")
    place.validate()
    place.train()
    yield place
    place.close()


def water(root: Path) -> Place:
    """As `vaewatch init` proposes it, settled at once."""
    if not DATA.is_dir():
        pytest.skip(f"{DATA} is not there; VAEWATCH_DATA may point to another copy of the real data")
    place = Place(root / "water", "water")
    place.incoming.mkdir(parents=True)
    for file in sorted(DATA.glob("*.parquet"))[WATER_DAYS]:
        shutil.copy(file, place.incoming)
    code, _, errors = place.run("init", str(place.incoming))
    assert code == 0, errors
    place.edit("incoming:\n", "incoming:\n  settle_seconds: 0\n")
    place.edit("train:\n", f"train:\n  recipe: {BRIEF}\n")
    return place


def challenge(place: Place) -> Receipt:
    """Train another version and have it judged."""
    steps.train(place.here, place.name, force=True)
    return steps.evaluate(place.here, place.name)


@pytest.fixture(scope="module")
def good(served: Place) -> Place:
    """A version that learned enough has taken the place of the brief one."""
    served.edit(BRIEF, GOOD[served.name])
    judged = challenge(served)
    assert judged.outcome == "passed", judged.reason
    steps.promote(served.here, served.name, **ANN)
    return served


def spoil(patched: pytest.MonkeyPatch, what: Callable[[pa.Table], pa.Table]) -> None:
    """From now on trainings read other records than there are."""
    read = training_set.read_window

    def spoiled(*args: Any, **kwargs: Any) -> Any:
        found = read(*args, **kwargs)
        return replace(found, table=what(found.table))

    patched.setattr(training_set, "read_window", spoiled)


def scores(place: Place, batch_id: str) -> pa.Table:
    found = place.table("scores")
    return found.filter(pc.equal(found["batch_id"], batch_id))


@pytest.fixture(scope="module")
def quick(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """A version serves that was trained for two hundred steps: enough to learn what goes together."""
    root = tmp_path_factory.mktemp("quick")
    if request.param == "water":
        place = water(root)
        place.edit(BRIEF, QUICKLY)
        place.validate()
    else:
        place = request.getfixturevalue("validated_once").copy(root / "payments")
        place.edit("{steps: 60, n_members: 2}", QUICKLY)
    place.train()
    yield place
    place.close()


@pytest.mark.parametrize("quick", ["water"], indirect=True)
def test_a_version_whose_data_was_changed_is_told_from_what_comes_out_now(
    quick: Place, tmp_path: Path
) -> None:
    """A day is corrected. As long as Delta has its old rows the version is made of them; then the day is
    named.
    """
    place = quick.copy(tmp_path / "corrected")
    day = next(row["batch_id"] for row in place.ledger() if row["status"] != "refused")
    file = place.incoming / f"{day}.parquet"
    table = pq.read_table(file)
    pq.write_table(table.slice(0, table.num_rows - 7), file)
    place.validate(day)
    kept = steps.reproduce(place.here, place.name, 1)
    assert kept.outcome == "equal"
    (since,) = kept.since
    assert since.startswith(f"batch {day} was delivered again")

    here = place.here
    here.tables(here.dataset(place.name)).vacuum("records", keep_hours=0)
    changed = steps.reproduce(here, place.name, 1)
    assert changed.outcome == "different"
    assert changed.difference.startswith("features.numeric.")
    assert any(said.startswith(f"batch {day} was delivered again") for said in changed.likely)
    place.close()


@pytest.mark.parametrize("quick", ["payments", "water"], indirect=True)
def test_a_challenger_that_learned_shuffled_columns_is_refused_by_the_gates_as_they_are(
    quick: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick one of those below: a refusal on each feed in every run of the tests."""
    quick.edit("train:\n", "train:\n  seed: 1\n")
    spoil(monkeypatch, shuffled)
    judged = challenge(quick)
    assert judged.outcome == "refused", judged.reason
    failed = {f.gate for f in judged.decision.findings if f.verdict == "failed" and f.level == "required"}
    assert "negative_elbo" in failed
    assert "values go together" in judged.decision.cause
    assert judged.champion == 1


@pytest.mark.parametrize("quick", ["payments"], indirect=True)
def test_a_challenger_that_learned_what_was_corrected_since_is_refused(quick: Place, tmp_path: Path) -> None:
    """Half of the days came with their columns sorted apart, were learned, and came again as they should."""
    place = quick.copy(tmp_path / "corrected")
    days = [row["batch_id"] for row in place.ledger() if row["status"] != "refused"][::2]
    right = {day: pq.read_table(place.incoming / f"{day}.parquet") for day in days}
    for of in (shuffled, lambda table: table):
        for day, table in right.items():
            pq.write_table(of(table), place.incoming / f"{day}.parquet")
            place.validate(day)
        if of is shuffled:
            steps.train(place.here, place.name)
    judged = steps.evaluate(place.here, place.name)
    assert judged.outcome == "refused", judged.reason
    assert "learned" in {f.gate for f in judged.decision.findings if f.refuses}
    assert "or batches were corrected since; train again (vaewatch train payments)" in judged.decision.cause
    better = challenge(place)
    assert better.outcome == "passed", better.reason
    place.close()


@SLOW
def test_a_better_challenger_serves_and_a_rollback_gives_the_scores_of_before(good: Place) -> None:
    """To the bit, there and back; and what serves can be made again from what was noted of it."""
    day = next(row["batch_id"] for row in good.ledger() if row["status"] != "refused")
    found = {}
    for version in (1, 2, 1, 2):
        if version == 1:
            steps.rollback(good.here, good.name, **ANN)
        else:
            steps.promote(good.here, good.name, 2, override=True, **ANN)
        good.score(day, force=True)
        now = scores(good, day)
        assert set(now["model_version"].to_pylist()) == {version}
        assert now.equals(found.setdefault(version, now))
    assert not found[1]["anomaly_score"].equals(found[2]["anomaly_score"])
    again = steps.reproduce(good.here, good.name, 2)
    assert (again.outcome, again.since) == ("equal", ())


@SLOW
@pytest.mark.parametrize(
    ("what", "seed", "gates", "words"),  # a seed of its own, or it would be the version that there is
    [
        (shuffled, 1, {"learned", "negative_elbo"}, "values go together"),
        (contaminated, 2, {"learned"}, "it learned many odd ones"),
        (few, 3, set(), "it learned from 110 records, the champion from "),
        ("collapsed", 4, {"negative_elbo"}, "they collapsed onto the prior"),
    ],
    ids=["shuffled", "contaminated", "few", "collapsed"],
)
def test_a_worse_challenger_is_refused_with_its_reason(
    good: Place,
    what: Callable[[pa.Table], pa.Table] | str,
    seed: int,
    gates: set[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And the champion serves on."""
    recipe = GOOD[good.name]
    serves = good.here.registry.champion(good.name)
    good.edit("train:\n", f"train:\n  seed: {seed}\n")

    if what == "collapsed":
        good.edit(recipe, f"{recipe[:-1]}, kl_weight: 1000}}")
    try:
        with monkeypatch.context() as patched:
            if callable(what):
                spoil(patched, what)
            judged = challenge(good)
    finally:
        good.edit(f"train:\n  seed: {seed}\n", "train:\n")
        if what == "collapsed":
            good.edit(f"{recipe[:-1]}, kl_weight: 1000}}", recipe)
    assert judged.outcome == "refused", judged.reason
    failed = {f.gate for f in judged.decision.findings if f.refuses}
    assert failed >= gates
    assert failed & {"recall", "negative_elbo", "learned"}
    assert words in judged.decision.cause
    assert good.here.registry.champion(good.name) == serves


@SLOW
def test_ten_records_make_no_version(good: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is registered that could not be calibrated."""
    before = good.models()
    good.edit("train:\n", "train:\n  seed: 5\n")
    spoil(monkeypatch, ten)
    with pytest.raises(NotReady, match="too few to calibrate on"):
        steps.train(good.here, good.name, force=True)
    good.edit("train:\n  seed: 5\n", "train:\n")
    assert good.models() == before
