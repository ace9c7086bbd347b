"""The critic: which cell of a record does not belong there."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from vae_core import MISSING, CellCritic, Layout, Records, attribute, fit_critic
from vae_core.model import VAE

LAYOUT = Layout(("a", "b", "c", "d"), (("kind", 3), ("fee", 3)), ("day",))
N_RECORDS, STEPS = 3000, 600


def draw(n: int, seed: int) -> Records:
    """b follows a, d follows the kind, the fee's code is the kind's, c follows the context; else
    independent.
    """
    random = torch.Generator().manual_seed(seed)
    numeric = torch.randn(n, 4, generator=random)
    day = torch.randn(n, 1, generator=random)
    kind = torch.randint(3, (n, 1), generator=random)
    numeric[:, 1] = numeric[:, 0] + 0.1 * numeric[:, 1]
    numeric[:, 2] = day[:, 0] + 0.1 * numeric[:, 2]
    numeric[:, 3] = kind[:, 0] - 1 + 0.1 * numeric[:, 3]
    return Records(numeric, kind.expand(-1, 2).clone(), day)


@pytest.fixture(scope="module")
def critic() -> CellCritic:
    found = fit_critic(LAYOUT, draw(N_RECORDS, 1), seed=0, steps=STEPS)
    assert found is not None
    return found


def swapped(column: int, n: int = 400) -> tuple[Records, torch.Tensor]:
    """Records with another's value in one column, and where that is far enough from their own to be told."""
    records, others = draw(n, 2), draw(n, 3)
    numeric, codes = records.numeric.clone(), records.categorical.clone()
    if column < 4:
        numeric[:, column] = others.numeric[:, column]
        return Records(numeric, codes, records.context), (numeric - records.numeric)[:, column].abs() > 0.6
    codes[:, column - 4] = others.categorical[:, column - 4]
    return Records(numeric, codes, records.context), (codes != records.categorical)[:, column - 4]


@pytest.mark.parametrize(
    ("column", "companions"), [(0, {1}), (1, {0}), (2, set()), (3, set()), (4, set()), (5, {3, 4})]
)
def test_an_ordinary_value_in_the_wrong_place_is_told(
    critic: CellCritic, column: int, companions: set[int]
) -> None:
    """Of two that go together either may be the wrong one; the third of three that do gives the one away."""
    records, told = swapped(column)
    blamed = critic.suspicion(records)[told].argmax(dim=1)
    right = torch.isin(blamed, torch.tensor([column, *companions])).float().mean()
    assert right > 0.9
    if column == 2:  # what the context says of c nothing else does
        assert (blamed == 2).float().mean() > 0.9


def test_two_that_speak_against_each_other_are_suspected_alike(critic: CellCritic) -> None:
    """Nobody can know which of a and b is wrong where both are ordinary: by symmetry each is as likely."""
    records, told = swapped(1)
    likely = critic.suspicion(records)[told].exp().mean(dim=0)
    assert abs(likely[0] - likely[1]) < 0.1
    assert likely[0] + likely[1] > 0.8


def test_suspicion_is_a_distribution_over_the_cells_that_are_there(critic: CellCritic) -> None:
    records = draw(50, 4)
    records.numeric[:, 1], records.categorical[:, 0] = math.nan, MISSING
    likely = critic.suspicion(records).exp()
    assert_close(likely.sum(dim=1), torch.ones(50))
    assert not likely[:, [1, 4]].any()


def test_suspicion_is_the_same_in_any_company(critic: CellCritic) -> None:
    """A reason must not depend on what else was flagged that night."""
    records = draw(150, 5)
    whole = critic.suspicion(records)
    for i in (0, 64, 149):
        assert torch.equal(critic.suspicion(records[i])[0], whole[i])
    order = torch.randperm(150, generator=torch.Generator().manual_seed(0))
    assert torch.equal(critic.suspicion(records[order]), whole[order])


def test_suspicion_is_finite_whatever_comes(critic: CellCritic) -> None:
    wild = draw(4, 6)
    wild.numeric[0], wild.numeric[1], wild.numeric[2, 0], wild.context[3] = math.inf, -1e30, 1e30, math.nan
    nothing = Records(torch.full((1, 4), math.nan), torch.full((1, 2), MISSING), torch.zeros(1, 1))
    for records in (wild, nothing):
        assert critic.suspicion(records).isfinite().all()
    assert critic.suspicion(wild)[2].argmax() == 0


def test_the_same_records_and_seed_give_the_same_critic(critic: CellCritic) -> None:
    """Reproducing a version compares it to the bit."""
    again = fit_critic(LAYOUT, draw(N_RECORDS, 1), seed=0, steps=STEPS)
    assert again is not None
    for name, tensor in critic.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name


def test_it_comes_back_from_its_tensors(critic: CellCritic) -> None:
    loaded = CellCritic.from_state(LAYOUT, critic.state_dict())
    assert torch.equal(loaded.suspicion(draw(20, 7)), critic.suspicion(draw(20, 7)))
    with pytest.raises(RuntimeError, match="size mismatch"):
        CellCritic.from_state(Layout(("a",), (("kind", 3),)), critic.state_dict())


def test_how_far_a_number_is_through_its_pieces_is_its_rank_between_the_knots(critic: CellCritic) -> None:
    """By numpy's interpolation: a quarter of the training records lies in each piece."""
    values = draw(200, 9).values
    through = critic.through_pieces(values).unflatten(1, (-1, 4))  # (B, pieces, N)
    assert through.shape == (200, 4, 4)
    knots, trained = critic.knots.numpy(), draw(N_RECORDS, 1).values.numpy()
    assert_close(torch.tensor(np.quantile(trained, [0, 0.25, 0.5, 0.75, 1], axis=0)).float(), critic.knots)
    for column in range(4):
        rank = np.interp(values[:, column], knots[:, column], range(5))
        assert_close((through + 0.5).sum(dim=1)[:, column], torch.tensor(rank).float(), atol=1e-5, rtol=0)


def test_a_piece_without_width_says_nothing_and_few_records_have_no_pieces() -> None:
    """Where most records have one value, a step there would outweigh everything else."""
    records = draw(N_RECORDS, 10)
    records.numeric[: 2 * N_RECORDS // 3, 1] = 0.0
    records.numeric[:, 2] = math.nan
    tied, few = (
        fit_critic(LAYOUT, records, seed=0, steps=1),
        fit_critic(LAYOUT, draw(999, 1), seed=0, steps=1),
    )
    assert tied
    assert few
    widths = tied.knots.diff(dim=0)
    through = tied.through_pieces(draw(20, 11).values).unflatten(1, (4, 4))
    assert (widths[:, 1] == 0).any()
    assert not widths[:, 2].any()
    assert not through[:, widths == 0].any()
    assert few.through_pieces(draw(20, 11).values).shape == (20, 0)


def test_a_value_of_a_code_that_never_was_is_told_from_few_records() -> None:
    """Thirty records, a column of zeros and ones: 3 is no value of it, however many deviations that is."""
    random = torch.Generator().manual_seed(12)
    codes, none = torch.randint(2, (230, 6), generator=random).float(), torch.empty(230, 0)
    records = Records(codes, none.long(), none)
    critic = fit_critic(Layout(tuple("abcdef")), records[:30], seed=0, steps=STEPS)
    assert critic
    assert torch.equal(critic.rim, torch.tensor([[0.0], [1.0]]).expand(2, 6))
    assert not critic.outside(codes).any()
    wrong, column = records[30:], torch.randint(6, (200,), generator=random)
    wrong.numeric[torch.arange(200), column] = 3.0
    assert (critic.suspicion(wrong).argmax(dim=1) == column).float().mean() > 0.95


def test_columns_without_values_are_never_suspected_and_constant_ones_may_be() -> None:
    """A column that training never saw means nothing; one that was always the same is wrong when it moves."""
    records = draw(500, 8)
    records.numeric[:, 0], records.numeric[:, 2] = math.nan, 5.0
    critic = fit_critic(LAYOUT, records, seed=0, steps=300)
    assert critic is not None
    moved = draw(20, 9)
    moved.numeric[:, 2] = 9.0
    suspicion = critic.suspicion(moved)
    assert (suspicion.argmax(dim=1) == 2).all()
    assert (suspicion[:, 0] < -1000).all()


def test_where_there_is_nothing_to_tell_there_is_no_critic() -> None:
    one = Records(torch.randn(50, 1), torch.empty(50, 0).long(), torch.empty(50, 0))
    assert fit_critic(Layout(("a",)), one, seed=0) is None
    assert fit_critic(LAYOUT, draw(50, 1), seed=0, steps=0) is None
    with pytest.raises(ValueError, match="do not fit the layout"):
        fit_critic(Layout(("a", "b")), one, seed=0)
    with pytest.raises(ValueError, match="cannot train a critic on 0 records"):
        fit_critic(LAYOUT, draw(0, 1), seed=0)


def test_a_critic_of_other_columns_is_refused(vae: VAE) -> None:
    """In another order its tensors fit, and it would speak of other columns than it means."""
    layout = vae.layout
    turned = Layout(layout.numeric[::-1], layout.categorical, layout.context)
    record = Records(torch.zeros(1, 5), torch.zeros(1, 2, dtype=torch.int64), torch.zeros(1, 1))
    with pytest.raises(ValueError, match="differ from the model's in name, order or role"):
        attribute(vae, record, CellCritic(turned))


def test_a_wild_value_is_named_whatever_the_critic_says(vae: VAE) -> None:
    """Hundreds of nats speak louder: a critic that has learned nothing must not hide what is far out."""
    ignorant = CellCritic(vae.layout)
    with torch.no_grad():
        for parameter in ignorant.parameters():
            parameter.zero_()
    records = Records(
        torch.tensor([[1.5, -1.5, 1.5, 40.0, -1.0]]), torch.tensor([[0, 1]]), torch.tensor([[-1.0]])
    )
    assert attribute(vae, records, ignorant).share[0, 3] > 0.9


def test_shares_add_up_with_a_critic_too(vae: VAE) -> None:
    critic = CellCritic(vae.layout)
    random = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.normal_(generator=random)
    records = Records(
        torch.randn(30, 5, generator=random) * 3,
        torch.randint(3, (30, 2), generator=random),
        torch.randn(30, 1, generator=random),
    )
    found = attribute(vae, records, critic.eval())
    assert (found.share >= 0).all()
    whole = found.share.sum(dim=1) + found.kl_share
    assert_close(whole, (whole > 0.5).float())
