"""Numbers that come back: no more surprising than they are rare, unless their context contradicts them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from vae_core import VAE, Layout, Recipe, Records, fit, score
from vae_core.fused import FusedScorer
from vae_core.recurring import MARGIN, RecurringValues, soften

LAYOUT = Layout(("fare", "toll", "rate", "code"))
TOLL, ELSEWHERE = 6.55, 3.0
nats = st.floats(-50, 1e6, width=32)


def trips(n: int, seed: int) -> Records:
    """A toll in two of a hundred, another in one of a thousand; a rate that the code says exactly."""
    random = torch.Generator().manual_seed(seed)
    fare, toll, code = torch.randn(n, generator=random), torch.zeros(n), torch.zeros(n)
    toll[torch.rand(n, generator=random) < 0.001] = 2 * TOLL
    toll[torch.rand(n, generator=random) < 0.02] = TOLL
    code[torch.rand(n, generator=random) < 0.4] = 1
    columns = torch.stack([fare, toll, 2 * code, code], dim=1)
    return Records(columns, torch.empty(n, 0, dtype=torch.int64), torch.empty(n, 0))


@pytest.fixture(scope="module")
def fitted() -> tuple[VAE, VAE]:
    """One model that knows of values that recur, and the same one that does not."""
    records = standardised(trips(6000, seed=1))
    ours, plain = (
        fit(LAYOUT, records, Recipe(steps=500, recurring_share=share), seed=0) for share in (0.002, 0)
    )
    return ours, plain


def standardised(records: Records) -> Records:
    """By what the whole population has, so that every draw is on one scale."""
    mean = torch.tensor([0, 0.02 * TOLL, 0.8, 0.4])
    std = torch.tensor([1, TOLL * math.sqrt(0.02 * 0.98), 2 * math.sqrt(0.24), math.sqrt(0.24)])
    return Records((records.numeric - mean) / std, records.categorical, records.context)


def test_the_excess_is_what_the_typical_term_has_beyond_the_rarity() -> None:
    """Of a value of a tenth and one of a hundredth of the records, the latter explained; others are no value
    that recurs, or too few to have a median.
    """
    n = 1000
    cells, terms = torch.arange(n, dtype=torch.float32).mul_(0.001), torch.zeros(n)
    cells[:100], terms[:100] = 7.0, torch.linspace(10, 29.8, 100)  # the 50th: 19.8
    cells[100:130], terms[100:130] = 8.0, 1.0
    cells[130:149], terms[130:149] = 9.0, 90.0
    cells[200:230] = math.nan
    shuffled = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    numeric = torch.stack([torch.full((n,), math.nan), cells], dim=1)[shuffled]
    found = RecurringValues()
    found.fit(numeric, torch.stack([terms, terms], dim=1)[shuffled], share=0.002)
    assert (found.column.tolist(), found.value.tolist()) == ([1], [7.0])
    assert_close(found.bound, torch.tensor([math.log(10) + MARGIN]))
    assert_close(found.excess, torch.tensor([19.8 - math.log(10) - MARGIN]))
    for share in (0, 0.11):
        none = RecurringValues()
        none.fit(numeric, torch.stack([terms, terms], dim=1), share=share)
        assert (len(none.value), none.by_column()) == (0, [])


@given(st.lists(st.floats(0.01, 1), min_size=6, max_size=6))
def test_a_calibrated_model_has_no_value_whose_mean_surprise_exceeds_its_rarity(weights: list[float]) -> None:
    """The identity that the rule rests on, for every joint table of two values and three contexts."""
    joint = torch.tensor(weights, dtype=torch.float64).view(2, 3)
    joint /= joint.sum()
    share = joint.sum(dim=1)
    surprise = -(joint / joint.sum(dim=0)).log()
    mean = (joint * surprise).sum(dim=1) / share
    context = joint.sum(dim=0)
    divergence = ((joint / share[:, None]) * (joint / share[:, None] / context).log()).sum(dim=1)
    assert_close(mean, -share.log() - divergence)
    assert (mean <= -share.log() + 1e-12).all()


@given(st.lists(nats, min_size=1, max_size=30), st.floats(0, 8), st.floats(0, 1e4))
def test_softening_lowers_only_what_is_above_the_bound_and_keeps_the_order(
    terms: list[float], bound: float, excess: float
) -> None:
    """Of a recurring value; any other keeps its term to the bit."""
    before = torch.tensor(terms)
    values = RecurringValues(1)
    values.value.fill_(2.0)
    values.bound.fill_(bound)
    values.excess.fill_(excess)

    def softened(cell: float) -> Tensor:
        after = before[None].clone()
        soften(after, torch.full_like(after, cell), values.by_column())
        return after[0]

    after, highest = softened(2.0), torch.tensor(bound)
    assert (after <= before).all()
    assert (after >= torch.minimum(before, highest)).all()
    order = before.argsort()
    assert (after[order].diff() >= 0).all()
    for other in (math.nan, 1.0, 3.0):
        assert torch.equal(softened(other), before)


def test_a_toll_that_one_in_fifty_pays_does_not_hide_what_nobody_pays(fitted: tuple[VAE, VAE]) -> None:
    """A fare far out and another toll come before it; without the rule, no fare does."""
    fresh = trips(4000, seed=2)
    paid, far, other = (torch.arange(4000) % 200 == i for i in range(3))
    fresh.numeric[:, 1] = TOLL * paid
    fresh.numeric[far, 0] = 9.0
    fresh.numeric[other, 1] = ELSEWHERE
    ours, plain = (score(vae, standardised(fresh)).anomaly_score for vae in fitted)
    assert ours[far].min() > ours[paid].max()
    assert ours[other].min() > ours[paid].max()
    assert plain[far].max() < plain[paid].min()


def test_a_value_that_its_context_explains_is_as_surprising_in_a_wrong_one(fitted: tuple[VAE, VAE]) -> None:
    """The rate of another code is what a person wants to hear of, however often it comes back."""
    ours, plain = fitted
    wrong = trips(200, seed=3)
    wrong.numeric[:, 2] = 2 - wrong.numeric[:, 2]
    normal = score(ours, standardised(trips(4000, seed=2))).anomaly_score
    found, before = (score(vae, standardised(wrong)).anomaly_score for vae in (ours, plain))
    assert (found > normal.quantile(0.99)).all()
    assert not {2, 3} & set(ours.recurring.column.tolist()), "rate and code explain each other"
    paid = wrong.numeric[:, 1] > 0
    assert torch.equal(found[~paid], before[~paid])


def test_both_ways_of_scoring_soften_alike_and_what_is_read_back_too(
    fitted: tuple[VAE, VAE], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of before the rule, whose tensors lack it, scores as it did."""
    (ours, plain), records = fitted, standardised(trips(500, seed=4))
    records.numeric[::7, 0] = math.nan
    fast, state = score(ours, records), ours.state_dict()
    assert len(ours.recurring.value)
    with monkeypatch.context() as patch:
        patch.setattr(FusedScorer, "of", lambda _: None)
        assert_close(score(ours, records).column_terms, fast.column_terms, rtol=5e-5, atol=2e-4)
    again = VAE.from_config(ours.config(), state)
    assert torch.equal(score(again, records).anomaly_score, fast.anomaly_score)
    older = VAE.from_config(ours.config(), {k: v for k, v in state.items() if "recurring" not in k})
    assert torch.equal(score(older, records).anomaly_score, score(plain, records).anomaly_score)
