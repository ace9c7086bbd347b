"""Fits repeat, resume, recover, and say clearly what they cannot use."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

import pytest
import torch
from safetensors.torch import load, save

from tests.vae_core.conftest import LAYOUT, draw_records
from vae_core import (
    VAE,
    Checkpoint,
    DataWarning,
    Known,
    Layout,
    OtherFit,
    Progress,
    Recipe,
    Records,
    TrainingDiverged,
    fit,
    fit_critic,
    score,
)
from vae_core import losses as losses_module
from vae_core import run as run_module
from vae_core.gradient import Gradient
from vae_core.objectives import ElboTerms

SHORT = Recipe(steps=60, n_members=2, width=16, warm_up=5)


def same_state(one: VAE, other: VAE) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    )


def numbers(*rows: list[float]) -> tuple[Layout, Records]:
    """Records of numeric columns alone."""
    x = torch.tensor(rows, dtype=torch.float32)
    layout = Layout(numeric=tuple(f"x{i}" for i in range(x.shape[1])))
    return layout, Records(x, torch.zeros(len(x), 0, dtype=torch.int64), torch.zeros(len(x), 0))


def test_the_same_seed_gives_the_same_weights_on_any_number_of_threads(
    layout: Layout, draw: Callable[..., Records], threads: Callable[[int], None]
) -> None:
    """A registered model can be made again, and another seed makes another."""
    records = draw(500, seed=2, missing=0.05)
    threads(1)
    first = fit(layout, records, SHORT, seed=7)
    threads(2)
    assert same_state(first, fit(layout, records, SHORT, seed=7))
    assert torch.get_num_threads() == 2
    assert not same_state(first, fit(layout, records, SHORT, seed=8))


@pytest.mark.parametrize(
    ("settings", "stop_at"),
    [
        ({}, 20),
        ({}, 30),
        ({}, 40),
        ({"regulariser": "mmd"}, 30),
        ({"regulariser": "sliced_wasserstein"}, 10),
        ({"regulariser": "adversarial"}, 20),
        ({"regulariser": "adversarial", "reconstruction": "vae_gan"}, 30),
    ],
)
@pytest.mark.filterwarnings("ignore::vae_core.TrainingWarning")  # 60 steps
def test_a_resumed_fit_gives_the_weights_of_an_uninterrupted_one(
    layout: Layout, draw: Callable[..., Records], settings: dict[str, str], stop_at: int
) -> None:
    """A worker that is replaced in the middle of the night changes nothing; checkpoints pass through
    safetensors.
    """
    records = draw(500, seed=2)
    stored: dict[int, bytes] = {}

    def keep(checkpoint: Checkpoint) -> None:
        stored[checkpoint.step] = save(checkpoint.tensors)

    recipe = replace(SHORT, **settings)  # type: ignore[arg-type]
    whole = fit(layout, records, recipe, seed=3, checkpoint=keep, checkpoint_every=10)
    assert sorted(stored) == [10, 20, 30, 40, 50, 60]
    resume = Checkpoint(stop_at, load(stored[stop_at]))
    assert same_state(whole, fit(layout, records, recipe, seed=3, resume=resume, checkpoint_every=10))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_caller_who_wants_no_gradients_gets_the_same_model(
    layout: Layout, draw: Callable[..., Records], mode: Callable[[], AbstractContextManager[None]]
) -> None:
    """Around a night's work, say. With categories, whose loss is differentiated by torch."""
    records, recipe = draw(100, seed=1), Recipe(steps=3, n_members=1)
    usual = fit(layout, records, recipe, seed=0), fit_critic(layout, records, seed=0, steps=3)
    with mode():
        inside = fit(layout, records, recipe, seed=0), fit_critic(layout, records, seed=0, steps=3)
    for one, other in zip(usual, inside, strict=True):
        assert one is not None
        assert other is not None
        assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
        assert not any(x.is_inference() for x in other.state_dict().values())


def test_a_checkpoint_is_a_copy(layout: Layout, draw: Callable[..., Records]) -> None:
    """Later steps must not change what was handed out, nor a resumed fit what it was given."""
    kept: list[Checkpoint] = []
    records = draw(200, seed=2)
    fit(layout, records, SHORT, seed=3, checkpoint=kept.append, checkpoint_every=30)
    first = {name: tensor.clone() for name, tensor in kept[0].tensors.items()}
    fit(layout, records, SHORT, seed=3, resume=kept[0])
    assert all(torch.equal(first[name], tensor) for name, tensor in kept[0].tensors.items())
    assert not torch.equal(
        first["weights.encoder_inputs.weight"], kept[1].tensors["weights.encoder_inputs.weight"]
    )


def test_progress_comes_every_25_steps_and_at_the_end(layout: Layout, draw: Callable[..., Records]) -> None:
    """A fit shows that it is alive and that the loss falls."""
    seen: list[Progress] = []
    fit(layout, draw(500, seed=2), SHORT, seed=0, on_progress=seen.append)
    assert [p.step for p in seen] == [25, 50, 60]
    assert {p.steps for p in seen} == {60}
    assert seen[-1].loss < seen[0].loss
    assert all(p.loss == pytest.approx(p.reconstruction + p.kl_divergence, rel=1e-4) for p in seen)
    assert all(0 < p.learning_rate <= SHORT.learning_rate and p.kl_divergence >= 0 for p in seen)


@pytest.mark.parametrize("noise", ["gaussian", "gaussian_shared_sigma"])  # by hand, and by autograd
def test_the_loss_that_is_told_is_the_one_that_is_lowered(noise: str) -> None:
    """Records too odd to be learned from lift the mean of all, and look like divergence."""
    draws = torch.randn(500, 3, generator=torch.Generator().manual_seed(1))
    layout, records = numbers(*draws.tolist())
    seen: list[Progress] = []
    records.numeric[::50] *= 1e3
    fit(layout, records, replace(SHORT, noise=noise, trim=0.1), seed=0, on_progress=seen.append)
    assert seen[-1].loss < 100 < seen[-1].loss_of_all
    assert all(p.loss == pytest.approx(p.reconstruction + p.kl_divergence, rel=1e-4) for p in seen)
    seen.clear()
    fit(layout, records, replace(SHORT, noise=noise, trim=0.0), seed=0, on_progress=seen.append)
    assert all(p.loss == pytest.approx(p.loss_of_all, rel=1e-4) for p in seen)


@pytest.mark.parametrize("n", [1, 2, 3, 127])
def test_few_records_are_enough(n: int, layout: Layout, draw: Callable[..., Records]) -> None:
    """A dataset's first night may bring a handful of records."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DataWarning)  # two records often share a category
        vae = fit(layout, draw(n, seed=4), SHORT, seed=0)
    assert score(vae, draw(50, seed=5)).anomaly_score.isfinite().all()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (
            {"recipe": {"steps": 30}},
            r"recipe must be a Recipe \(of a mapping: Recipe\.from_dict\), is a dict",
        ),
        ({"layout": ("a", "b")}, "layout must be a Layout, which names the columns, is a tuple"),
        ({"seed": None}, "seed must be a whole number, is a NoneType"),
        ({"known": draw_records(5, seed=0)}, r"known must be a Known\(anomalies, normals\), is a Records"),
        ({"known": Known(torch.zeros(2, 5))}, "records must be Records.*, not a Tensor"),  # type: ignore[arg-type]
        ({"records": torch.zeros(2, 5)}, "records must be Records.*, not a Tensor"),
    ],
)
def test_an_argument_of_another_kind_is_refused_by_name(wrong: dict[str, Any], said: str) -> None:
    """Before it fails deep inside as something else."""
    right = {"layout": LAYOUT, "records": draw_records(50, seed=0), "recipe": SHORT, "seed": 0}
    with pytest.raises(TypeError, match=said):
        fit(**right | wrong)


def test_no_records_are_an_error(layout: Layout, draw: Callable[..., Records]) -> None:
    """An empty window is a fault of the caller's; a model of nothing would hide it."""
    with pytest.raises(ValueError, match="cannot train on 0 records"):
        fit(layout, draw(0, seed=0), SHORT, seed=0)


def test_records_without_any_value_are_an_error() -> None:
    """Nothing was observed, so nothing can be normal."""
    layout, records = numbers([math.nan], [math.nan])
    with pytest.raises(ValueError, match="every cell of all 2 records is missing"):
        fit(layout, records, SHORT, seed=0)


def test_columns_that_teach_nothing_are_named_once() -> None:
    """One warning, with the names: the operator decides whether the source is broken."""
    layout, records = numbers([1.0, math.nan, 5.0], [2.0, math.nan, 5.0], [3.0, math.nan, math.nan])
    with pytest.warns(
        DataWarning, match="never observed, left out of every score: x1; columns constant.*: x2$"
    ):
        vae = fit(layout, records, SHORT, seed=0)
    present = numbers([2.0, 100.0, 5.0])[1]
    assert score(vae, present).column_terms[0, 1] == 0


def test_a_constant_column_that_changes_stands_out() -> None:
    """A status that never moved and now does is what an operator wants to see."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 3, generator=generator)
    x[:, 2] = 0
    layout, records = numbers(*x.tolist())
    with pytest.warns(DataWarning, match="constant"):
        vae = fit(layout, records, SHORT, seed=0)
    changed = Records(records.numeric[:1].clone(), records.categorical[:1], records.context[:1])
    changed.numeric[0, 2] = 3.0
    assert score(vae, changed).anomaly_score > score(vae, records).anomaly_score.max()


def test_a_loss_that_is_not_finite_once_costs_some_steps_and_not_the_fit(
    layout: Layout, draw: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fit goes back to its last good weights, slows down and goes on."""
    calls = 0
    genuine = losses_module.elbo_terms

    def poisoned(*args: object) -> ElboTerms:
        nonlocal calls
        calls += 1
        terms = genuine(*args)  # type: ignore[arg-type]
        return ElboTerms(terms.reconstruction * math.nan, terms.kl_divergence) if calls == 30 else terms

    steady: list[Progress] = []
    fit(layout, draw(300, seed=2), SHORT, seed=0, on_progress=steady.append)
    monkeypatch.setattr(losses_module, "elbo_terms", poisoned)
    seen: list[Progress] = []
    vae = fit(layout, draw(300, seed=2), SHORT, seed=0, on_progress=seen.append)
    assert [p.step for p in seen] == [25, 50, 60]
    assert calls == 85  # steps 26 to 50 were taken twice
    slower = [one.learning_rate / other.learning_rate for one, other in zip(seen, steady, strict=True)]
    assert slower == pytest.approx([1, 0.3, 0.3])  # of the same steps' without a fault
    assert score(vae, draw(50, seed=5)).anomaly_score.isfinite().all()


def test_so_does_a_gradient_by_hand_that_is_not_finite_once(
    draw: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default family of numbers alone takes its steps without autograd."""
    calls = 0
    genuine = run_module.gradient

    def poisoned(*args: object, **settings: object) -> Gradient:
        nonlocal calls
        calls += 1
        found = genuine(*args, **settings)  # type: ignore[arg-type]
        return replace(found, loss=found.loss * math.nan) if calls == 30 else found

    monkeypatch.setattr(run_module, "gradient", poisoned)
    seen: list[Progress] = []
    records = draw(300, seed=2)
    alone = Records(records.numeric, records.categorical[:, :0], records.context)
    layout = Layout(tuple("abcde"), (), ("hour",))
    vae = fit(layout, alone, SHORT, seed=0, on_progress=seen.append)
    assert [p.step for p in seen] == [25, 50, 60]
    assert calls == 85
    assert score(vae, alone).anomaly_score.isfinite().all()


def test_a_loss_that_stays_non_finite_ends_in_words(
    layout: Layout, draw: Callable[..., Records], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Better no model tonight than one of NaN."""

    def hopeless(*args: object) -> ElboTerms:
        terms = genuine(*args)  # type: ignore[arg-type]
        return ElboTerms(terms.reconstruction * math.nan, terms.kl_divergence)

    genuine = losses_module.elbo_terms
    monkeypatch.setattr(losses_module, "elbo_terms", hopeless)
    with pytest.raises(TrainingDiverged, match="loss not finite by step 25 of 60, after 5 returns"):
        fit(layout, draw(300, seed=2), SHORT, seed=0)


def test_training_survives_one_absurd_record(layout: Layout, draw: Callable[..., Records]) -> None:
    """A unit mix-up in the training window must not take the model down; trimming leaves the record out."""
    records = draw(500, seed=2)
    records.numeric[17, 2] = 1e30
    vae = fit(layout, records, SHORT, seed=0)
    result = score(vae, records)
    assert result.anomaly_score.isfinite().all()
    assert result.anomaly_score.argmax() == 17


def test_checkpoints_need_a_positive_interval(layout: Layout, draw: Callable[..., Records]) -> None:
    """Zero would otherwise be a division by zero much later."""
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1, is 0"):
        fit(layout, draw(10, seed=0), SHORT, seed=0, checkpoint_every=0)


@pytest.mark.parametrize(
    ("differs", "said"),
    [
        ({"recipe": replace(SHORT, width=32)}, "recipe"),
        ({"recipe": replace(SHORT, learning_rate=0.02)}, "recipe"),  # of the same weights' shapes
        ({"seed": 1}, "seed"),
        ({"layout": Layout(("e", "b", "c", "d", "a"), LAYOUT.categorical, LAYOUT.context)}, "layout"),
        ({"records": draw_records(49, seed=0)}, "records"),
        ({"known": Known(anomalies=draw_records(2, seed=1))}, "anomalies"),
        ({"known": Known(normals=draw_records(2, seed=1)), "seed": 1}, "seed, normals"),
    ],
)
def test_a_checkpoint_of_another_fit_is_refused(differs: dict[str, Any], said: str) -> None:
    """A changed recipe must not pick up last night's half-finished weights, of whatever shapes."""
    kept: list[Checkpoint] = []
    these = {"layout": LAYOUT, "records": draw_records(50, seed=0), "recipe": SHORT, "seed": 0}
    fit(**these, checkpoint=kept.append, checkpoint_every=30)
    with pytest.raises(OtherFit, match=rf"after step 30 is of another fit, .* in: {said}; .*start again"):
        fit(**these | differs, resume=kept[0])


@pytest.mark.parametrize("part", ["numeric", "categorical", "context"])
def test_one_other_cell_makes_another_fit(part: str) -> None:
    """In the last of more records than are hashed together; so do the same cells in other places."""
    kept: list[Checkpoint] = []
    recipe, records = replace(SHORT, steps=30), draw_records(70_000, seed=0)
    fit(LAYOUT, records, recipe, seed=0, checkpoint=kept.append, checkpoint_every=30)
    fit(LAYOUT, records, recipe, seed=0, resume=kept[0])
    cells = getattr(records, part)
    for changed in (
        cells[:, :1].roll(1, dims=0),
        torch.cat([cells[:-1, :1], (cells[-1:, :1] == 0).to(cells.dtype)]),
    ):
        other = replace(records, **{part: torch.cat([changed, cells[:, 1:]], dim=1)})
        with pytest.raises(OtherFit, match="differs in: records"):
            fit(LAYOUT, other, recipe, seed=0, resume=kept[0])


def test_a_checkpoint_that_does_not_say_which_fit_it_is_of_is_refused() -> None:
    """As those were until they did."""
    kept: list[Checkpoint] = []
    fit(LAYOUT, draw_records(50, seed=0), SHORT, seed=0, checkpoint=kept.append, checkpoint_every=30)
    old = {name: tensor for name, tensor in kept[0].tensors.items() if not name.startswith("of.")}
    with pytest.raises(OtherFit, match="does not say which fit it belongs to: an older vae_core wrote it"):
        fit(LAYOUT, draw_records(50, seed=0), SHORT, seed=0, resume=Checkpoint(30, old))
