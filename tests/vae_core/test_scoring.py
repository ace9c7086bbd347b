"""Scores: the same whatever is beside them, finite whatever comes in, high for what is wrong."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from vae_core import MISSING, VAE, Expected, Layout, Recipe, Records, Scores, expect, fit, score
from vae_core.fused import FusedScorer
from vae_core.scoring import ROUNDING, cell_terms
from vae_core.slices import LARGEST_SLICE, SLICE_CELLS, slice_size

Result = Scores | Expected


def tensors(result: Result) -> list[torch.Tensor]:
    return [getattr(result, f.name) for f in fields(result)]


def same(one: Result, other: Result, rows: torch.Tensor | slice = slice(None)) -> bool:
    """To the bit."""
    return all(torch.equal(a, b[rows]) for a, b in zip(tensors(one), tensors(other), strict=True))


def changed(records: Records, row: int, column: int, value: float) -> Records:
    """The records with one cell replaced; columns after the numeric ones are categorical."""
    copy = Records(records.numeric.clone(), records.categorical.clone(), records.context.clone())
    n_numeric = copy.numeric.shape[1]
    if column < n_numeric:
        copy.numeric[row, column] = value
    else:
        copy.categorical[row, column - n_numeric] = int(value)
    return copy


@settings(max_examples=8)
@given(seed=st.integers(0, 2**32 - 1))
def test_reordering_records_reorders_their_scores_to_the_bit(
    vae_with_gaps: VAE, draw: Callable[..., Records], seed: int
) -> None:
    """Row order in a Parquet file means nothing."""
    records = draw(2 * LARGEST_SLICE + 77, seed=11, missing=0.1)
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(seed))
    for ask in (score, expect):
        assert same(ask(vae_with_gaps, records[order]), ask(vae_with_gaps, records), order)


@settings(max_examples=12)
@given(start=st.integers(0, 3000), length=st.integers(0, 2500))
def test_a_part_of_a_batch_scores_as_it_does_in_the_whole(
    vae_with_gaps: VAE, draw: Callable[..., Records], start: int, length: int
) -> None:
    """A batch may be cut anywhere: into files, into workers, down to one record."""
    records = draw(3000, seed=12, missing=0.1)
    rows = slice(start, start + length)
    for ask in (score, expect):
        assert same(ask(vae_with_gaps, records[rows]), ask(vae_with_gaps, records), rows)


RECIPES = [
    {},
    {"prior": "normal"},
    {"n_members": 3, "width": 50, "n_latents": 5},
    {"n_members": 1, "sigma_floor": 1e-6},
    {"linear_records": 0, "n_components": 1},
]
NUMBERS = tuple("abcde")
LAYOUTS = {
    "numbers": Layout(NUMBERS, (), ("hour",)),
    "numbers and categories": Layout(NUMBERS, (("colour", 4), ("shade", 4)), ("hour",)),
    "no context, a category of many codes": Layout(NUMBERS, (("colour", 4), ("shade", 90))),
    "categories": Layout((), (("colour", 4), ("shade", 4))),
}


CASES = [
    *itertools.product(["numbers"], RECIPES, [0.0, 0.1]),
    *itertools.product(list(LAYOUTS)[1:], RECIPES[:2], [0.1]),
]


@pytest.mark.parametrize(("columns", "recipe", "missing"), CASES)
def test_the_fused_way_agrees_with_the_other_one(
    columns: str,
    recipe: dict[str, float],
    missing: float,
    draw: Callable[..., Records],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two ways to one score, to rounding, far out and with gaps as well; and the fast one's bits do not
    depend on place.
    """
    layout = LAYOUTS[columns]
    drawn = draw(2 * LARGEST_SLICE + 77, seed=31, missing=missing)
    records = Records(
        drawn.numeric[:, : len(layout.numeric)],
        drawn.categorical[:, : len(layout.categorical)],
        drawn.context[:, : len(layout.context)],
    )
    vae = fit(layout, records, Recipe(steps=60, **recipe), seed=0)
    vae.weights.copy_(torch.linspace(0.5, 2, len(layout.columns) + 1))
    if layout.numeric:
        records.numeric[5, 1], records.numeric[9, 2] = 1e9, -300.0
    assert FusedScorer.of(vae) is not None
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))
    for ask in (score, expect):
        with monkeypatch.context() as patch:
            patch.setattr(FusedScorer, "of", lambda _: None)
            slow = ask(vae, records)
        fast = ask(vae, records)
        assert same(ask(vae, records[order]), fast, order)
        for ours, theirs in zip(tensors(fast), tensors(slow), strict=True):
            if ours.is_floating_point():
                assert_close(ours, theirs, rtol=5e-5, atol=2e-4)  # half of ROUNDING
            else:  # two codes as likely as each other to rounding
                assert (ours != theirs).sum() <= ours.numel() / 1000


@pytest.mark.parametrize(
    "recipe",
    [{"posterior": "full"}, {"noise": "student_t"}, {"prior": "hierarchical"}, {"regulariser": "mmd"}],
)
def test_other_families_are_not_scored_by_the_default_ones_arithmetic(recipe: dict[str, str]) -> None:
    """The fast way knows one family."""
    assert FusedScorer.of(VAE(Layout(("a", "b")), Recipe(**recipe))) is None


WIDTHS = [(1, 16), (7, 64), (32, 64), (33, 50), (130, 64)]


@pytest.mark.parametrize(("n_columns", "width"), WIDTHS)
def test_scores_do_not_depend_on_threads_or_place_for_any_width(
    n_columns: int, width: int, threads: Callable[[int], None]
) -> None:
    """Matrix kernels treat the edges of a block differently; shapes off the beaten track must agree, too."""
    generator = torch.Generator().manual_seed(n_columns)
    layout = Layout(numeric=tuple(f"x{i}" for i in range(n_columns)), categorical=(("k", 5),))
    n = 3 * LARGEST_SLICE + 1
    records = Records(
        torch.randn(n, n_columns, generator=generator),
        torch.randint(-1, 6, (n, 1), generator=generator),
        torch.zeros(n, 0),
    )
    vae = fit(layout, records, Recipe(steps=3, width=width), seed=0, on_doubt=lambda _: None)
    order = torch.randperm(n, generator=generator)
    for ask in (score, expect):
        threads(1)
        alone = ask(vae, records)
        threads(2)
        assert same(ask(vae, records), alone)
        assert torch.get_num_threads() == 2
        assert same(ask(vae, records[order]), alone, order)
        for row in (0, LARGEST_SLICE - 1, LARGEST_SLICE, n - 1):
            assert same(ask(vae, records[row]), alone, slice(row, row + 1))


class _Largest(TorchDispatchMode):
    """n_bytes: of the largest tensor that an operation gave."""

    n_bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        if isinstance(found, torch.Tensor):
            self.n_bytes = max(self.n_bytes, found.untyped_storage().nbytes())
        return found


@pytest.mark.parametrize(
    "recipe",
    [
        {"n_members": 4, "width": 600},
        {"posterior": "full", "n_latents": 40},
        {"encoder": "exact", "prior": "normal", "noise": "gaussian_shared_sigma", "n_latents": 40},
        {"posterior": "full", "n_components": 900},
    ],
)
def test_no_tensor_of_a_slice_is_larger_than_the_bound(recipe: dict[str, Any]) -> None:
    """Many latents or components cost records of a slice, not gigabytes."""
    vae = VAE(Layout(tuple("abcdefgh")), Recipe(**recipe))
    vae.initialise(torch.zeros(1, 0, dtype=torch.int64), torch.Generator().manual_seed(0))
    n = slice_size(vae)
    records = Records(torch.randn(n, 8), torch.zeros(n, 0, dtype=torch.int64), torch.zeros(n, 0))
    with torch.no_grad(), _Largest() as seen:
        cell_terms(vae.eval(), records)
    assert n < LARGEST_SLICE
    assert SLICE_CELLS < seen.n_bytes <= 4 * SLICE_CELLS


def test_a_non_contiguous_table_scores_the_same(vae: VAE, draw: Callable[..., Records]) -> None:
    """Columns cut out of a larger matrix arrive with strides."""
    records = draw(100, seed=13)
    strided = Records(records.numeric.T.contiguous().T, records.categorical, records.context)
    assert same(score(vae, strided), score(vae, records))


def test_no_records_give_no_scores(vae: VAE, draw: Callable[..., Records]) -> None:
    """An empty batch is a batch."""
    result = score(vae, draw(0, seed=0))
    assert result.anomaly_score.shape == (0,)
    assert result.column_terms.shape == (0, 7)


def test_a_score_is_the_sum_of_its_parts(vae_with_gaps: VAE, draw: Callable[..., Records]) -> None:
    """What a reviewer sees per column adds up to what the record was ranked by."""
    result = score(vae_with_gaps, draw(500, seed=14, missing=0.1))
    parts = result.column_terms.sum(dim=1) + result.kl_divergence
    assert_close(result.anomaly_score, parts, rtol=1e-6, atol=1e-5)
    assert (result.kl_divergence >= 0).all()


def test_a_number_s_term_is_half_a_gaussian_s_and_half_a_student_t_s(draw: Callable[..., Records]) -> None:
    """By the densities of torch.distributions, less what is typical of the column (Scores.column_terms)."""
    records = draw(400, seed=24)
    layout = Layout(NUMBERS, (), ("hour",))
    records = Records(records.numeric, records.categorical[:, :0], records.context)
    vae = fit(layout, records, Recipe(steps=60, linear_records=0), seed=0)
    with torch.no_grad():
        gaussian = vae.decode(vae.encode(records).mean, records).numeric
        std, scale = gaussian.variance.sqrt(), vae.scale.sqrt()
        own = -torch.distributions.Normal(gaussian.mean, std).log_prob(records.values)
        student = torch.distributions.StudentT(3.0, gaussian.mean, scale)
        robust = student.log_prob(gaussian.mean) - student.log_prob(records.values)
    expected = (0.5 * own + 0.5 * robust).mean(dim=0) - vae.typical
    assert_close(score(vae, records).column_terms, expected, rtol=1e-4, atol=1e-4)


def test_normal_records_have_column_terms_around_zero(vae: VAE, draw: Callable[..., Records]) -> None:
    """Terms are relative to training: for 20,000 new records each column's mean is small beside its
    spread.
    """
    terms = score(vae, draw(20_000, seed=15)).column_terms
    assert (terms.mean(dim=0).abs() < 0.5 * terms.std(dim=0) + 0.1).all()


def test_a_missing_cell_has_no_term_and_does_not_raise_the_score(
    vae_with_gaps: VAE, draw: Callable[..., Records]
) -> None:
    """Missing values are the contract's business; here they must not push a record up the review queue."""
    complete = draw(2000, seed=16)
    whole = score(vae_with_gaps, complete)
    for column in range(7):
        blank = Records(complete.numeric.clone(), complete.categorical.clone(), complete.context)
        if column < 5:
            blank.numeric[:, column] = math.nan
        else:
            blank.categorical[:, column - 5] = MISSING
        result = score(vae_with_gaps, blank)
        assert (result.column_terms[:, column] == 0).all()
        above = (result.anomaly_score > whole.anomaly_score.quantile(0.99)).float().mean()
        assert above < (0.03 if column < 5 else 0.06)  # 1 % without the blanks


def test_a_record_of_missing_cells_alone_is_unremarkable(
    vae_with_gaps: VAE, draw: Callable[..., Records]
) -> None:
    """Nothing was observed, so nothing can be anomalous."""
    nothing = Records(torch.full((1, 5), math.nan), torch.full((1, 2), MISSING), torch.full((1, 1), math.nan))
    result = score(vae_with_gaps, nothing)
    assert (result.column_terms == 0).all()
    assert result.reconstruction == 0
    normal = score(vae_with_gaps, draw(1000, seed=17)).anomaly_score
    assert result.anomaly_score < normal.quantile(0.95)


@pytest.mark.parametrize("column", range(5))
@pytest.mark.parametrize("sign", [-1, 1])
def test_the_farther_out_the_higher_the_score_and_always_finite(
    vae: VAE, draw: Callable[..., Records], column: int, sign: int
) -> None:
    """A unit mix-up, an overflow or an infinity ranks above what is merely unusual."""
    record = draw(1, seed=18)
    values = [5.0, 20.0, 1e3, 1e6, 1e30, math.inf]
    results = [score(vae, changed(record, 0, column, sign * value)) for value in values]
    assert all(t.isfinite().all() for result in results for t in tensors(result))
    scores = [result.anomaly_score.item() for result in results]
    assert scores == sorted(scores)
    assert scores[0] > score(vae, record).anomaly_score.item()


def test_infinite_context_gives_finite_scores(vae: VAE, draw: Callable[..., Records]) -> None:
    """Context is not modelled, and still must not break the record."""
    record = draw(1, seed=18)
    odd = Records(record.numeric, record.categorical, torch.full((1, 1), math.inf))
    assert all(t.isfinite().all() for t in tensors(score(vae, odd)))


PLANTED = [
    pytest.param(3, 6.0, id="extreme"),
    pytest.param(1, 3.0, id="broken correlation"),
    pytest.param(6, 0, id="wrong pair of categories"),
    pytest.param(4, 1.3, id="wrong context"),
]


@pytest.mark.parametrize(("column", "value"), PLANTED)
def test_a_planted_anomaly_ranks_at_the_top(
    vae: VAE, draw: Callable[..., Records], column: int, value: float
) -> None:
    """One of each kind among 1,000 ordinary records."""
    records = draw(1000, seed=19)
    record = Records(
        torch.tensor([[1.5, -1.5, 1.5, 0.0, -1.0]]), torch.tensor([[0, 1]]), torch.tensor([[-1.0]])
    )
    ordinary = score(vae, records).anomaly_score
    assert score(vae, record).anomaly_score < ordinary.quantile(0.95)
    planted = score(vae, changed(record, 0, column, value)).anomaly_score
    assert (ordinary > planted).float().mean() < 0.01


def test_a_model_read_back_scores_the_same_to_the_bit(
    vae_with_gaps: VAE, draw: Callable[..., Records]
) -> None:
    """JSON and safetensors hold the whole model: weights, scales, settings."""
    config = json.loads(json.dumps(vae_with_gaps.config()))
    restored = VAE.from_config(config, load(save(vae_with_gaps.state_dict())))
    records = draw(500, seed=20, missing=0.1)
    assert same(score(restored, records), score(vae_with_gaps, records))


def test_expected_values_are_those_of_the_members_mixture(vae: VAE, draw: Callable[..., Records]) -> None:
    """Mean and spread by the law of total variance; the likeliest category by the mean probability."""
    records = draw(50, seed=21)
    with torch.no_grad():
        gaussian = vae.decode(vae.encode(records).mean, records).numeric
        from_others = vae.decode_categories_from_the_others(records)
    expected = expect(vae, records)
    second = (gaussian.variance + gaussian.mean.square()).mean(0)
    assert_close(expected.mean, gaussian.mean.mean(0), rtol=1e-4, atol=1e-5)
    assert_close(expected.std, (second - gaussian.mean.mean(0).square()).sqrt(), rtol=1e-3, atol=1e-4)
    probabilities = from_others.probabilities(0).mean(0)
    assert_close(expected.probability[:, 0], probabilities.max(-1).values)
    assert torch.equal(expected.code[:, 0], probabilities.argmax(-1))


def test_scoring_leaves_no_gradients_and_no_trace(vae: VAE, draw: Callable[..., Records]) -> None:
    """A scoring worker lives long: nothing may pile up, and the model must not change."""
    before = {name: tensor.clone() for name, tensor in vae.state_dict().items()}
    result = score(vae, draw(10, seed=22))
    assert not result.anomaly_score.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in vae.state_dict().items())


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_scores_repeatably_and_as_a_cpu_does_to_rounding(draw: Callable[..., Records]) -> None:
    """Where the model was trained must not change who gets flagged; on one device, scores are equal to the
    bit.
    """
    records = draw(LARGEST_SLICE + 9, seed=23, missing=0.1)
    layout = Layout(("a", "b", "c", "d", "e"), (("colour", 4), ("shade", 4)), ("hour",))
    gpu, again = (fit(layout, records, Recipe(steps=50), seed=0, device="cuda") for _ in range(2))
    assert all(
        torch.equal(a, b) for a, b in zip(gpu.state_dict().values(), again.state_dict().values(), strict=True)
    )
    cpu = VAE.from_config(gpu.config(), {name: x.cpu() for name, x in gpu.state_dict().items()})
    on_gpu = score(gpu, records)
    assert on_gpu.anomaly_score.device.type == "cpu"
    on_cpu = score(cpu, records).anomaly_score
    assert ((on_gpu.anomaly_score - on_cpu).abs() <= ROUNDING * on_cpu.abs().clamp(min=1)).all()
    order = torch.randperm(len(records), generator=torch.Generator().manual_seed(0))
    assert same(score(gpu, records[order]), on_gpu, order)
