"""What the benches compute themselves, against published values and other people's code. The benches are run
by hand.
"""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import friedmanchisquare

from pipeline.config.dataset import Flagging
from pipeline.detection.calibration import Calibration
from tests.bench import adbench, measure, methods, ranking, threshold, variants, verdicts


@pytest.mark.parametrize(("n_methods", "q"), [(2, 1.960), (5, 2.728), (10, 3.164)])
def test_critical_difference_is_that_of_demsars_table(n_methods: int, q: float) -> None:
    """Demšar (2006), table 5a."""
    found = ranking.critical_difference(n_methods, n_sets=24)
    assert found == pytest.approx(q * math.sqrt(n_methods * (n_methods + 1) / (6 * 24)), abs=1e-3)


def test_friedman_agrees_with_scipy() -> None:
    """Without ties the two are the same formula."""
    values = np.random.default_rng(0).normal(size=(5, 24)) + np.arange(5)[:, None] * 0.3
    expected = friedmanchisquare(*values).pvalue
    assert ranking.friedman_p(ranking.ranks(values)) == pytest.approx(expected)


def test_ranks_share_ties_and_put_failures_last() -> None:
    """A rival that fails gains nothing by it."""
    values = np.array([[0.9, 0.5], [0.9, np.nan], [0.7, 0.8], [0.1, np.nan]])
    assert ranking.ranks(values).tolist() == [[1.5, 2], [1.5, 3.5], [3, 1], [4, 3.5]]


def test_only_the_largest_runs_are_barred() -> None:
    """A bar within another bar says nothing."""
    assert ranking.not_told_apart(np.array([1.0, 1.5, 2.4, 4.0, 4.2]), 1.5) == [(0, 2), (3, 4)]
    assert ranking.not_told_apart(np.array([1.0, 3.0, 5.0]), 1.5) == []


def test_recall_splits_ties_at_the_budget() -> None:
    """Order decides nothing."""
    anomalous = np.array([True, False, True, False])
    assert measure.recall_at(np.array([9.0, 5.0, 5.0, 1.0]), anomalous, budget=2) == pytest.approx(0.75)
    assert measure.recall_at(np.array([9.0, 8.0, 7.0, 6.0]), anomalous, budget=1) == pytest.approx(0.5)


def test_a_line_that_was_cut_off_is_computed_again(tmp_path: Path) -> None:
    """An interrupted run goes on where it stood."""
    cache = tmp_path / "quality.jsonl"
    line = '{"set_name": "wine", "protocol": "clean", "seed": 0, "method": "KNN", "fingerprint": "f", "seconds": 1.0'
    cache.write_text(f'{line}, "auroc": 0.5}}\n{line}, "aur', encoding="utf-8")
    assert list(measure.read(cache)) == [measure.Task("wine", "clean", 0, "KNN", "f")]


def test_a_run_of_one_variant_renews_its_row_alone(tmp_path: Path) -> None:
    """Paired with the default of the same run; what is not complete stays as it is."""
    sets = [f"{i}_set{i}" for i in range(4)]
    cells = {  # AUROC on the first and the third set
        variants.BASE: {"contaminated": (0.8, 0.6), "clean": (0.9, 0.7)},
        "kl_weight: 4": {"contaminated": (0.7, 0.4), "clean": (0.9, 0.7)},
        "samples: 5": {"contaminated": (0.9, 0.9)},
    }
    results = [
        measure.Result(name, protocol, 0, method, "f", 1.0, auroc=x, average_precision=x / 2, recall=0.0)
        for method, protocols in cells.items()
        for protocol, found in protocols.items()
        for name, x in zip(sets[::2], found, strict=True)
    ]
    page = tmp_path / "family.md"
    old = "| default | 12 | a |\n| `free_nats: 2` | 12 | b |\n| `kl_weight: 4` | 12 | c |\n| `samples: 5` | 12 | d |"
    page.write_text(f"before\n{variants.BEGIN}\n\n{variants.HEAD}\n{old}\n\n{variants.END}\nafter\n")
    variants.renew(page, variants.new_rows(results, sets))
    before, _, rest = page.read_text().partition(f"{variants.BEGIN}\n\n{variants.HEAD}\n")
    lines, _, after = rest.partition(f"\n\n{variants.END}")
    assert (before, after) == ("before\n", "\nafter\n")
    assert lines.splitlines() == [
        "| default | 2 | 70.0 / 35.0 |  | 80.0 / 40.0 |  |",
        "| `kl_weight: 4` | 2 | 55.0 / 27.5 | +15.0 ± 5.0 / +7.5 ± 2.5 | 80.0 / 40.0 | +0.0 ± 0.0 / +0.0 ± 0.0 |",
        "| `free_nats: 2` | 12 | b |",
        "| `samples: 5` | 12 | d |",
    ]


def test_gains_by_verdicts_are_told_by_count_and_way() -> None:
    """Two sets: their mean, its standard error, and the worse of them."""
    gains = np.array([[0.1, -0.2, 0.0, 0.5], [0.3, 0.0, 0.0, 0.1]])
    assert verdicts.table(gains, [5, 20], ["right", "wrong"]).splitlines()[2:] == [
        "| 5 | +0.200 ± 0.100, +0.100 | −0.100 ± 0.100, −0.200 |",
        "| 20 | +0.000 ± 0.000, +0.000 | +0.300 ± 0.200, +0.100 |",
    ]


def test_columns_of_counts_and_of_yes_and_no_are_told_apart() -> None:
    """Fractions, negative numbers and what a rate cannot reach are neither."""
    x = np.array([[0, 3, 0.5, -1, 0, 1e7], [1, 0, 1.0, 2, 0, 0], [1, 7, 2.0, 3, 0, 5]])
    assert adbench.counting(x) == [1]
    assert adbench.binary(x) == [0]


@pytest.mark.skipif(not adbench.DATA.exists(), reason="needs the ADBench sets")
def test_a_noise_model_of_counts_gets_the_columns_own_values() -> None:
    """Standardised, they would not be whole, and each of them would cost a hundred nats for every unit below
    0.
    """
    part = adbench.split("45_wine", "clean", 0)
    method = methods.OwnNoise({"steps": 40, "n_members": 1}, noise="poisson")
    assert method.having(["45_wine", "47_yeast"]) == ["45_wine"]
    assert np.isfinite(method(part, 0)).all()
    assert part.own_train.mean(axis=0) + part.own_train.std(axis=0) * part.train == pytest.approx(
        part.own_train
    )


@pytest.mark.skipif(not adbench.DATA.exists(), reason="needs the ADBench sets")
@pytest.mark.parametrize("protocol", adbench.PROTOCOLS)
def test_a_fifth_of_the_cells_is_missing_from_what_is_learned_and_what_is_scored(protocol: str) -> None:
    """Five standard errors of a share of at least 800 cells, 1 false alarm in 10⁶; the seed gives the same
    again.
    """
    part = adbench.split("45_wine", protocol, 0)
    for found, again, whole in zip(
        methods.with_gaps(part, 0), methods.with_gaps(part, 0), (part.train, part.test), strict=True
    ):
        gone = np.isnan(found)
        assert abs(gone.mean() - 0.2) < 5 * math.sqrt(0.16 / found.size)
        assert np.array_equal(found, again, equal_nan=True)
        assert np.array_equal(found[~gone], whole[~gone])
    for filled in (False, True):
        assert np.isfinite(methods.Gaps({"steps": 40, "n_members": 1}, filled=filled)(part, 0)).all()


def test_constant_columns_are_only_centred() -> None:
    """Whatever rounding makes of their deviation."""
    reference = np.array([[0.1, 0.0], [0.1, 2.0], [0.1, 4.0]])
    found = adbench.standardised(np.array([[1.1, 2.0]]), reference)
    assert found == pytest.approx(np.array([[1.0, 0.0]]))


def test_flags_beyond_a_conformal_threshold_are_beta_binomial() -> None:
    """Exchangeable scores keep the interval in 95 % of cells or a little more; the plain binomial one is too
    narrow.
    """
    random, cells = np.random.default_rng(0), []
    for seed in range(400):
        scores, test = random.random(500), random.random(500)
        flagged, _ = Calibration.fit(scores).flags(test, Flagging(error_rate=0.05), 1.0)
        cells.append(threshold.Cell("", seed, 0.05, "", 500, 500, int(flagged.sum())))
    assert 0.93 < np.mean([cell.side == 0 for cell in cells]) < 0.99
    assert np.mean([cell.in_binomial for cell in cells]) < 0.9


def test_the_gpu_bench_needs_torch_and_numpy_alone() -> None:
    """On a machine without a GPU it says so and runs the same lines on the CPU."""
    others = ("pyarrow", "pandas", "scipy", "sklearn", "matplotlib", "safetensors", "pydantic")
    program = f"import sys; sys.modules.update(dict.fromkeys({others!r}))\nimport tests.bench.gpu as bench\nbench.main()"
    command = [sys.executable, "-c", program, "--records", "3000", "--steps", "130"]
    done = subprocess.run(
        command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, done.stderr
    assert "skipped, pyarrow is not installed" in done.stdout
    for work in ("floors", "training step", "scoring", "quality, AUROC", "models at once"):
        assert work in done.stdout
    if not torch.cuda.is_available():
        assert "NO GPU" in done.stdout
        assert "0.0e+00 apart" in done.stdout
