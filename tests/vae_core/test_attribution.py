"""Reasons for flagged records."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.testing import assert_close

from vae_core import MISSING, VAE, Layout, Recipe, Records, attribute, fit

ORDINARY = Records(
    torch.tensor([[1.5, -1.5, 1.5, 0.0, -1.0]]), torch.tensor([[0, 1]]), torch.tensor([[-1.0]])
)


def with_cell(column: int, value: float) -> Records:
    numeric, codes = ORDINARY.numeric.clone(), ORDINARY.categorical.clone()
    if column < 5:
        numeric[0, column] = value
    else:
        codes[0, column - 5] = int(value)
    return Records(numeric, codes, ORDINARY.context)


def of_numbers(rows: list[list[float]]) -> Records:
    return Records(torch.tensor(rows), torch.empty(len(rows), 0).long(), torch.empty(len(rows), 0))


@pytest.fixture(scope="module")
def pair() -> VAE:
    """Six columns, the second of which follows the first, as a fee does an amount."""
    numbers = torch.randn(2000, 6, generator=torch.Generator().manual_seed(3))
    numbers[:, 1] = numbers[:, 0] + 0.1 * numbers[:, 1]
    return fit(
        Layout(("amount", "fee", *"cdef"), (), ()), of_numbers(numbers.tolist()), Recipe(steps=500), seed=0
    )


@pytest.mark.parametrize(
    ("column", "value"), [(0, -1.5), (1, 3.0), (2, 6.0), (3, 6.0), (3, -1e6), (4, 1.3), (1, math.inf)]
)
def test_the_changed_number_is_named_first_with_what_it_should_have_been(
    vae: VAE, column: int, value: float
) -> None:
    """A reviewer reads the first reason: it must be the right column, and the interval must hold the true
    value.
    """
    result = attribute(vae, with_cell(column, value))
    assert result.share[0].argmax() == column
    assert result.share[0, column] > 0.5
    mean, std = result.expected.mean[0, column], result.expected.std[0, column]
    assert abs(mean - ORDINARY.numeric[0, column]) < 3 * std
    assert std < 2


@pytest.mark.parametrize("code", [2, 3, 0, 4])
def test_a_wrong_pair_of_categories_is_laid_to_one_of_the_two(vae: VAE, code: int) -> None:
    """Either could be the wrong one, and nothing else is; what is expected given the other is the right
    pair.
    """
    result = attribute(vae, with_cell(6, code))
    assert result.share[0].argmax().item() in {5, 6}
    assert result.expected.code[0, 1] == 1


def test_nothing_else_is_blamed_beside_a_wild_value(vae: VAE) -> None:
    """A wild value drags the latents along and makes ordinary values look odd: they are not, once it is
    mended.
    """
    result = attribute(vae, with_cell(3, 40.0))
    assert result.share[0, 3] > 0.95


def test_two_columns_that_are_wrong_together_are_both_named(pair: VAE) -> None:
    """An amount of 80,000 with the fee that belongs to it: each speaks for the other, and neither alone
    stands out.
    """
    record = of_numbers([[9.0, 9.0, 0.5, -0.5, 0.2, 0.0]])
    result = attribute(pair, record)
    assert set(result.share[0].topk(2).indices.tolist()) == {0, 1}
    assert result.share[0, :2].min() > 0.3
    assert result.share[0, :2].sum() > 0.8
    assert (result.expected.mean[0, :2].abs() < 3).all()


def test_what_no_record_has_is_not_expected_of_a_column(pair: VAE) -> None:
    """A distance of 3,000 miles would explain the fare: without bounds both are blamed alike, with them the
    fare alone, and what it should have been follows from the distance.
    """
    record = of_numbers([[1.5, 20.0, 0.5, -0.5, 0.2, 0.0]])
    anything = attribute(pair, record)
    assert abs(anything.share[0, 0] - anything.share[0, 1]) < 0.1
    assert anything.expected.mean[0, 0] > 10
    bounded = attribute(pair, record, within=torch.tensor([[-3.5] * 6, [3.5] * 6]))
    assert bounded.share[0, 1] > 0.95
    assert abs(bounded.expected.mean[0, 1] - 1.5) < 0.5


def test_bounds_that_hold_everything_change_nothing(vae: VAE, draw: Callable[..., Records]) -> None:
    """They are about values that no record has."""
    records, far = draw(50, seed=33), torch.full((5,), 1e30)
    with_bounds = attribute(vae, records, within=torch.stack([-far, far]))
    assert_close(with_bounds.share, attribute(vae, records).share, rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"within must be \(2, 5\)"):
        attribute(vae, records, within=far)
    turned = torch.stack([-far, far])
    turned[0, 1], turned[1, 3] = math.nan, -2e30
    with pytest.raises(ValueError, match="the lowest and the highest value of each number, is not for b, d"):
        attribute(vae, records, within=turned)


@pytest.mark.parametrize("n_columns", [1, 2])
def test_with_few_columns_there_are_reasons_too(n_columns: int) -> None:
    """One column has no pair, and is to blame for everything."""
    numeric = torch.randn(300, n_columns, generator=torch.Generator().manual_seed(3))
    layout = Layout(tuple("ab"[:n_columns]), (), ())
    empty = torch.empty(300, 0)
    narrow = fit(layout, Records(numeric, empty.long(), empty), Recipe(steps=50), seed=0)
    records = Records(numeric[:5] * 20, empty[:5].long(), empty[:5])
    result = attribute(narrow, records)
    assert (result.share.sum(dim=1) + result.kl_share > 0.99).all()


def test_shares_and_the_kl_share_add_up_to_one(vae: VAE, draw: Callable[..., Records]) -> None:
    """They are parts of one whole, none of them negative."""
    result = attribute(vae, draw(200, seed=30))
    total = result.share.sum(dim=1) + result.kl_share
    assert (result.share >= 0).all()
    assert (result.kl_share >= 0).all()
    assert_close(total[total > 0], torch.ones_like(total[total > 0]))


def test_a_missing_cell_is_never_a_reason(vae_with_gaps: VAE, draw: Callable[..., Records]) -> None:
    """There is no value to blame; what it should have been is still told."""
    records = draw(50, seed=31, missing=0.3)
    result = attribute(vae_with_gaps, records)
    assert (result.share[records.observed == 0] == 0).all()
    assert all(t.isfinite().all() for t in (result.drop, result.expected.mean, result.expected.std))
    assert (result.expected.code != MISSING).all()


def test_reasons_do_not_depend_on_the_other_records(vae: VAE, draw: Callable[..., Records]) -> None:
    """The same record gets the same reasons in every batch."""
    records = draw(40, seed=32)
    whole, alone = attribute(vae, records), attribute(vae, records[7])
    assert torch.equal(whole.share[7:8], alone.share)
    assert torch.equal(whole.expected.mean[7:8], alone.expected.mean)


def test_no_records_need_no_reasons(vae: VAE, draw: Callable[..., Records]) -> None:
    """Most nights flag nothing in some batch."""
    assert attribute(vae, draw(0, seed=0)).share.shape == (0, 7)
