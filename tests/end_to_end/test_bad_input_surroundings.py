"""Input that strains the model, and faults of the machine, MLflow and the disk; see test_bad_input.py."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from pipeline import steps
from pipeline.errors import NotReady, RegistryUnreachable, StorageFailed

from .shop import LEARNED, SETTINGS, N, Shop, changed, orders

if TYPE_CHECKING:
    from tests.end_to_end.conftest import Place

pytestmark = [
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning"),  # MLflow's
    pytest.mark.filterwarnings(  # Great Expectations 1.24 imports them
        "ignore:module 'sre_(constants|parse|compile)' is deprecated:DeprecationWarning"
    ),
]


# --- the model ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained_shop(landed_once: tuple[Place, Any], tmp_path_factory: pytest.TempPathFactory) -> Place:
    """With a champion, learned from a constant column, one that is all missing and one with thousands of
    values.
    """
    place = type(landed_once[0])(tmp_path_factory.mktemp("trained shop"), "orders")
    table = changed("weight", pa.nulls(LEARNED, pa.float64()), table=orders(LEARNED))
    table = changed("pieces", pa.array([3] * LEARNED, pa.int64()), table=table)
    many = pa.array([f"shop {i}" for i in range(LEARNED)])
    Shop(place).land(changed("shop", many, table=table), "b0")
    place.validate()
    with warnings.catch_warnings():  # told to whoever trains
        warnings.filterwarnings("ignore", "training columns never observed.*weight; constant.*pieces")
        place.train()
    place.score()
    place.close()
    return place


@pytest.fixture
def scoring_shop(trained_shop: Place, open_copy: Callable[[Place], Place]) -> Place:
    return open_copy(trained_shop)


def test_a_batch_of_one_record_is_checked_and_scored(scoring_shop: Place) -> None:
    """Sizes of one find what divides by n - 1."""
    pq.write_table(orders(1, first=5000), scoring_shop.incoming / "b1.parquet")
    assert scoring_shop.validate("b1").batches[0].n_accepted == 1
    (done,) = scoring_shop.score("b1").batches
    assert (done.outcome, done.n_accepted) == ("scored", 1)
    assert np.isfinite(scoring_shop.table("scores")["anomaly_score"].to_numpy()).all()


def test_columns_constant_or_missing_throughout_do_not_spoil_training_or_scores(scoring_shop: Place) -> None:
    """Their spread is zero; nothing may be divided by it. A later value that differs must still be scored."""
    before = scoring_shop.table("scores")
    assert before.num_rows == LEARNED
    assert np.isfinite(before["anomaly_score"].to_numpy()).all()
    pq.write_table(orders(5, first=5000), scoring_shop.incoming / "b1.parquet")  # both columns vary here
    scoring_shop.validate("b1")
    assert scoring_shop.score("b1").batches[0].outcome == "scored"
    assert np.isfinite(scoring_shop.table("scores")["anomaly_score"].to_numpy()).all()


def test_unseen_categories_are_scored_as_unusual(scoring_shop: Place) -> None:
    """A new shop opens: its records are neither refused nor lost."""
    table = changed("kind", pa.array(["in"] * N), table=orders(first=5000))
    table = changed("kind", ["never seen", "", None], table=table)
    pq.write_table(table, scoring_shop.incoming / "b1.parquet")
    assert scoring_shop.validate("b1").batches[0].n_accepted == N
    assert scoring_shop.score("b1").batches[0].outcome == "scored"
    scores = scoring_shop.table("scores")
    mine = scores.filter(pc.equal(scores["batch_id"], "b1"))["anomaly_score"].to_numpy()
    assert len(mine) == N
    assert np.isfinite(mine).all()
    assert mine[0] > np.median(mine[3:])


def test_a_category_with_thousands_of_values_is_learned_and_scored(scoring_shop: Place) -> None:
    """Free text in a categorical column must cost accuracy there, not memory or the night."""
    scores = scoring_shop.table("scores")
    assert scores.num_rows == LEARNED
    assert np.isfinite(scores["anomaly_score"].to_numpy()).all()
    assert scoring_shop.left_over() == []


def test_without_a_champion_batches_wait(shop: Shop) -> None:
    """Not an error: they are scored as soon as there is one."""
    shop.check(orders())
    receipt = shop.place.score("b1")
    assert [(b.outcome, b.reason) for b in receipt.batches] == [("waiting", "no champion yet")]
    assert receipt.outcome == "waiting"
    assert shop.state().status == "accepted"
    with pytest.raises(NotReady, match="batch 'b2' was never validated; there is b1"):
        shop.place.score("b2")


# --- the surroundings ---------------------------------------------------------------------------------------


def test_an_unreachable_registry_is_said_and_nothing_is_changed(
    scoring_shop: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MLflow restarts at night, too: the checks go on, and a retry finishes the scores."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    nowhere = scoring_shop.with_settings(tracking_uri="http://127.0.0.1:9")
    pq.write_table(orders(first=5000), scoring_shop.incoming / "b1.parquet")
    assert steps.validate(nowhere, "orders").outcome == "done"
    before = scoring_shop.ledger(times=True), scoring_shop.versions()
    said = r"MLflow at http://127.0.0.1:9 could not look up .*refused; check that it runs and that VAEWATCH_TRACKING_URI"
    with pytest.raises(RegistryUnreachable, match=said):
        steps.score(nowhere, "orders")
    with pytest.raises(RegistryUnreachable, match=said):
        steps.train(nowhere, "orders")
    assert (scoring_shop.ledger(times=True), scoring_shop.versions()) == before
    assert scoring_shop.score("b1").batches[0].outcome == "scored"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own of 3 MB; only root may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small disk takes root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_on_a_full_disk_nothing_is_published_and_a_retry_finishes(
    new_shop: Callable[[Path], Shop], small_disk: Path, tmp_path: Path
) -> None:
    """The most ordinary failure of all must not leave half a batch."""
    shop = new_shop(tmp_path / "elsewhere")
    shop.place.settings = shop.place.settings.model_copy(
        update={"home": small_disk, "ledger_url": f"sqlite:///{tmp_path}/ledger.db"}
    )
    shop.land(orders())
    ballast = small_disk / "ballast"
    free = shutil.disk_usage(small_disk).free
    n_failed = 0
    for left in (0, 20_000, 60_000, 120_000, 250_000, 500_000, 1_000_000):  # full ever later in the step
        ballast.write_bytes(bytes(max(0, free - left)))
        try:
            (receipt,) = shop.place.validate("b1").batches
        except StorageFailed as fault:
            n_failed += 1
            assert re.search("No space left|disk is full", str(fault)), fault  # noqa: PT017
            assert shop.state() is None
            assert shop.records().num_rows == 0
            assert shop.place.left_over() == []
        else:
            break
    assert n_failed >= 2
    ballast.unlink()
    (receipt,) = shop.place.validate("b1", force=True).batches
    assert shop.sound(receipt).n_accepted == N


def test_a_file_that_may_not_grow_further_is_a_full_disk_without_root(shop: Shop) -> None:
    """The same without a mount: a quota shows as a write that fails."""
    shop.land(orders())
    assert shop.state() is None  # and the ledger is there
    code = """
        import resource, sys
        from pipeline import cli
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        sys.argv = ["vaewatch", "validate", "orders"]
        cli.main()
        """
    done = subprocess.run(
        [sys.executable, "-B", "-c", textwrap.dedent(code)],
        env=shop.place.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert "(a retry may help)" in done.stderr
    assert shop.state() is None
    (receipt,) = shop.place.validate("b1").batches
    assert shop.sound(receipt).n_accepted == N


@pytest.mark.slow
@pytest.mark.timeout(3600)  # 78 seconds of CPU, beside other work
def test_a_thousand_columns_are_checked_like_any(shop: Shop) -> None:
    """Sensor data come this wide; a rule each must not make a night of a minute."""
    n, names = 50, [f"x{i}" for i in range(1000)]
    columns = "columns:\n  id: {type: string}\n" + "".join(
        f"  {name}: {{type: float, role: numeric, required: true, min: -9, max: 9}}\n" for name in names
    )
    settings = SETTINGS.replace("time: at\n", "")
    shop.place.yaml.write_text(settings + columns, encoding="utf-8")
    rng = np.random.default_rng(1)
    values = {name: rng.uniform(-1, 1, n) for name in names}
    receipt = shop.check(pa.table({"id": [str(i) for i in range(n)], **values}))
    assert (receipt.outcome, receipt.n_accepted) == ("accepted", n)
